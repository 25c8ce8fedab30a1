"""A run directory: what a killed server goes on from, and what a finished run leaves.

Every checkpoint is written whole and carries the hash of its weights. The last two are kept; one that is damaged is
passed over for the one before it.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from hilum.common.config import StudyConfig, study_to_toml
from hilum.common.errors import DamagedError, RunError
from hilum.common.files import write_bytes, write_json, write_text
from hilum.common.weights import FlatWeights, Manifest, sha256_of

_GENERATIONS = 2
_STUDY = "study.resolved.toml"


@dataclass(frozen=True)
class RoundRecord:
    """One line of `rounds.jsonl`.

    Attributes:
        bytes_down: Sent to all sites.
        bytes_up: Received from all sites.
        sites: By name: `examples`, `loss`, `seconds`, `attempts`.
        failures: By name: why a site's update is not in the round.
    """

    round: int
    wall_seconds: float
    bytes_down: int
    bytes_up: int
    sites: dict[str, dict[str, float]]
    failures: dict[str, str]
    update_norm: float


@dataclass(frozen=True)
class Progressed:
    """Where a run stands: the weights after `len(rounds)` rounds."""

    weights: FlatWeights = field(repr=False)
    rounds: tuple[RoundRecord, ...]


class RunStore:
    """One run directory.

    Attributes:
        run_id: Names the run at the sites: the study's name and the start of a hash over the study and the run's
            place, so that it is the same after a resume and another run's state is never taken up.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder, self.run_id = folder, run_id

    @classmethod
    def open(cls, folder: Path, study: StudyConfig, *, resume: bool) -> "RunStore":
        """Begin a run in an empty place, or go on with the same study's run.

        Raises:
            RunError: If the folder holds another run, or none to resume.
        """
        check_output(folder, study, resume=resume)
        text = study_to_toml(study)
        write_text(folder / _STUDY, text)
        digest = hashlib.sha256(f"{folder.absolute()}\0{text}".encode()).hexdigest()
        return cls(folder, f"{study.study.name[:51]}-{digest[:12]}")

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def save(self, progressed: Progressed, manifest: Manifest) -> None:
        """Write a checkpoint, then `rounds.jsonl` to match it."""
        named = manifest.unflatten(progressed.weights)
        facts = {
            "sha256": sha256_of(named),
            "rounds": json.dumps([asdict(record) for record in progressed.rounds]),
        }
        path = self._checkpoints / f"round-{len(progressed.rounds):06d}.safetensors"
        write_bytes(path, save_tensors({name: np.ascontiguousarray(a) for name, a in named.items()}, facts))
        self._write_rounds(progressed)
        for old in sorted(self._checkpoints.glob("round-*.safetensors"))[:-_GENERATIONS]:
            old.unlink()

    def load(self, manifest: Manifest) -> Progressed | None:
        """The newest undamaged checkpoint; None if there is none.

        Raises:
            DamagedError: If there are checkpoints and all are damaged.
        """
        paths = sorted(self._checkpoints.glob("round-*.safetensors"), reverse=True)
        for path in paths:
            progressed = _read_checkpoint(path, manifest)
            if progressed is not None:
                self._write_rounds(progressed)
                return progressed
        if paths:
            raise DamagedError(
                "every checkpoint of this run is damaged; start the study in a new output folder"
            )
        return None

    def _write_rounds(self, progressed: Progressed) -> None:
        lines = [json.dumps(asdict(record)) for record in progressed.rounds]
        write_text(self.folder / "rounds.jsonl", "".join(line + "\n" for line in lines))

    def write(self, name: str, value: Any) -> None:
        """Write one JSON file of the run."""
        write_json(self.folder / name, value)


def check_output(folder: Path, study: StudyConfig, *, resume: bool) -> None:
    """See whether a run may begin, or go on, in a folder; nothing is written.

    Raises:
        RunError: If it may not.
    """
    existing = folder / _STUDY
    if folder.exists() and not folder.is_dir():
        raise RunError("the output is a file; name a folder that is new or empty")
    if existing.exists():
        if not resume:
            raise RunError(
                "the output folder holds another run; choose a new one, or go on with it by --resume"
            )
        if existing.read_text() != study_to_toml(study):
            raise RunError(
                "the output folder holds a run of another study; --resume goes on with the same study only"
            )
    elif resume:
        raise RunError("there is no run to resume in the output folder; leave out --resume to begin one")
    elif folder.exists() and any(folder.iterdir()):
        raise RunError("the output folder is not empty; name a folder that is new or empty")


def _read_checkpoint(path: Path, manifest: Manifest) -> Progressed | None:
    content = path.read_bytes()
    try:
        named = load_tensors(content)
        facts = _metadata(content)
        if sha256_of(named) != facts["sha256"]:
            return None
        weights = manifest.flatten(named)
        rounds = tuple(RoundRecord(**record) for record in json.loads(facts["rounds"]))
    except Exception:  # safetensors, JSON or a missing key: whatever broke, the file is damaged
        return None
    return Progressed(weights, rounds) if len(rounds) == _round_of(path) else None


def _metadata(content: bytes) -> dict[str, str]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]  # type: ignore[no-any-return]


def _round_of(path: Path) -> int:
    match = re.fullmatch(r"round-(\d+)\.safetensors", path.name)
    return int(match.group(1)) if match else -1
