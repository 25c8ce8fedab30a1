"""An encoder that a run left, as a network: `hilum.common.load_encoder("run")`. Stable: a change here is one of the version."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hilum.common.config import StudyConfig, parse_study
from hilum.common.config.data import DataSection
from hilum.common.config.resume import as_of_today
from hilum.common.encoders import Encoder, build_encoder
from hilum.common.errors import DamagedError, HilumError, RunError
from hilum.common.export import EncoderFiles, read_encoder
from hilum.common.files import read_json
from hilum.common.preparation.encoder_input import encoder_input


@dataclass(frozen=True)
class Pretrained:
    """An encoder and what it was trained on.

    Attributes:
        encoder: In evaluation mode, on the CPU; (B, C, *S) in [0, 1] -> (B, E).
        data: Modality, dimensions and size of its images.
        sha256: Over names, shapes, dtypes and bytes of its tensors.
        manifest: What `manifest.json` says of it.
    """

    encoder: Encoder = field(repr=False)
    data: DataSection
    sha256: str
    manifest: dict[str, Any] = field(repr=False)

    def prepare(self, image: npt.NDArray[np.generic], spacing_mm: tuple[float, ...] = ()) -> Tensor:
        """Bring one image, or a volume, to what the encoder takes, as for training; see `encoder_input`."""
        return encoder_input(image, self.data, spacing_mm)

    def features(self, image: npt.NDArray[np.generic], spacing_mm: tuple[float, ...] = ()) -> Tensor:
        """Return the features (E,) of one image or volume; of an encoder of pieces, the mean over them, as every evaluation takes it."""
        with torch.no_grad():
            found: Tensor = self.encoder(self.prepare(image, spacing_mm))
        return found.mean(0)


def load_encoder(folder: Path | str) -> Pretrained:
    """Build the network that a folder describes, and fill it with the folder's tensors.

    Args:
        folder: `encoder/` of a run, or the run.

    Raises:
        RunError: If there is no encoder, or the network that this version builds is not the one that is described.
        DamagedError: If a file is damaged, or tensors and description do not fit.
    """
    place, study = study_of(folder)
    files = read_encoder(place, study)
    encoder = build_encoder(study)
    _fill(encoder, files)
    return Pretrained(encoder.eval(), study.data, files.sha256, files.manifest)


def study_of(folder: Path | str) -> tuple[Path, StudyConfig]:
    """Return where an encoder lies, and the study that it describes, without tasks.

    Args:
        folder: `encoder/` of a run, or the run.

    Raises:
        RunError: If there is no encoder.
        DamagedError: If its manifest is damaged.
    """
    place = Path(folder)
    if not (place / "manifest.json").exists() and (place / "encoder" / "manifest.json").exists():
        place = place / "encoder"
    try:
        facts = read_json(place / "manifest.json")
        sections = {section: facts[section] for section in ("data", "encoder", "method")}
        named = {"study": {"name": facts["study"], "seed": facts["seed"]}}
        return place, parse_study({**named, **as_of_today(sections)})
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            "there is no encoder in this folder; give a finished run, or the `encoder` folder in it"
        ) from None
    except (HilumError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"manifest.json of the encoder is damaged, or of another version ({type(error).__name__}); fetch it again"
        ) from None


def _fill(encoder: Encoder, files: EncoderFiles) -> None:
    try:
        encoder.load_state_dict(
            {name: torch.from_numpy(np.array(array)) for name, array in files.weights.items()}
        )
    except RuntimeError:
        raise DamagedError(
            "the tensors are not those of the network that manifest.json describes; fetch the encoder again"
        ) from None
