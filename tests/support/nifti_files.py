"""NIfTI files for tests, read whole."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilum.client.intake.formats.nifti import open_nifti


@dataclass
class Read:
    volumes: list[np.ndarray]
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]


def read_nifti(path: Path) -> Read:
    with open_nifti(path) as file:
        volumes = [np.stack(list(volume.planes())) for volume in file.volumes()]
        return Read(volumes, file.affine, file.spacing_mm)
