"""What a study's training starts from: first values that its seed decides, and a file's weights where they fit.

Whoever signs a study reads the file and signs the hash of what came out of it; the server sends that with the first
round, and the sites hold it against the signed hash. So nobody else needs the file, and nobody can put in another.

Shapes: P all values that travel.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from hilum.common.config import StudyConfig
from hilum.common.encoders.warm_start import WarmStartReport, warm_start
from hilum.common.errors import DamagedError, RunError
from hilum.common.files import read_safetensors_metadata, write_bytes, write_json
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from hilum.common.weights import FlatWeights, flat_sha256

REPORT_FILE = "warm_start.json"
_TENSOR = "start"


@dataclass(frozen=True)
class Start:
    """What training starts from, where a file is behind it.

    Attributes:
        weights: (P,).
        report: What was taken from the file.
    """

    weights: FlatWeights = field(repr=False)
    report: WarmStartReport

    @property
    def sha256(self) -> str:
        """What the admin signs."""
        return flat_sha256(self.weights)


def start_from_file(study: StudyConfig) -> Start | None:
    """Return what a study starts from, its file read and held against its hash; None if its seed decides all.

    Raises:
        ConfigError: As of `warm_start`.
        DamagedError: As of `warm_start`.
    """
    if (init := study.encoder.init) is None:
        return None
    method = build_method(study)
    report = warm_start(method.encoder, Path(init.file), init.sha256)
    return Start(get_federated(method), report)


def seeded_start(study: StudyConfig) -> FlatWeights:
    """Return (P,) what the seed alone decides.

    Raises:
        RunError: If the study starts from a file: then that must be given.
    """
    if study.encoder.init is not None:
        raise RunError("the study starts from the weights of a file (encoder.init), and they were not given")
    return get_federated(build_method(study))


def write_report(folder: Path, start: Start) -> None:
    """Write what became of every tensor into a run's folder."""
    write_json(folder / REPORT_FILE, start.report.to_json(), private=True)


def write_start(path: Path, start: Start) -> None:
    """Keep a start for a server: the weights, and the report beside them."""
    content = save_tensors({_TENSOR: start.weights}, {"report": json.dumps(start.report.to_json())})
    write_bytes(path, content, private=True)


def read_start(path: Path, sha256: str) -> Start:
    """Read what `write_start` wrote.

    Args:
        path: The file.
        sha256: What the admin signed.

    Raises:
        RunError: If there is no such file.
        DamagedError: If it is damaged, or another start than the signed one.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunError(
            "the weights that the study starts from are not here; submit the study again, on this machine, with --resume"
        ) from None
    try:
        weights = load_tensors(content)[_TENSOR]
        report = WarmStartReport.from_json(json.loads(read_safetensors_metadata(content)["report"]))
        whole = flat_sha256(weights) == sha256
    except Exception:  # safetensors, JSON or a missing key: whatever broke, the file is damaged
        whole = False
    if not whole:
        raise DamagedError(
            "the weights that the study starts from are not those that were signed; submit it again with --resume"
        )
    return Start(weights, report)
