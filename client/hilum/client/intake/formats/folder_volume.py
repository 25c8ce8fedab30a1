"""The volumes of a research folder's NIfTI file, read in a decoding process.

Shapes: D slices, H rows, W columns.
"""

import math
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from hilum.client.intake.assembly.volume import compact
from hilum.client.intake.formats.ipc import Array, Facts, Write
from hilum.client.intake.planner import MIN_SLICES
from hilum.client.intake.reasons import Reason, Skip

if TYPE_CHECKING:
    from hilum.client.intake.formats.nifti import NiftiVolume


@dataclass(frozen=True)
class ReadVolumes:
    """The volumes of a NIfTI file; answered by `VolumesRead`."""

    path: Path = field(repr=False)


@dataclass(frozen=True)
class VolumesRead:
    """What one file holds.

    Attributes:
        volumes: One (D, H, W) array a time point; int16 where all are whole numbers that fit, else float32.
        affine: Of 16 numbers, row by row: array index (d, h, w, 1) to LPS millimetres.
        spacing_mm: Between slices, rows and columns.
    """

    volumes: tuple[npt.NDArray[np.float32] | npt.NDArray[np.int16], ...] = field(repr=False)
    affine: tuple[float, ...]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class _Facts:
    shape: tuple[int, int, int]
    times: int
    affine: tuple[float, ...]
    spacing_mm: tuple[float, float, float]


_FACTS = TypeAdapter(_Facts)


def read_volumes(job: ReadVolumes, write: Write) -> Facts:
    """Write the slices of each time point.

    Raises:
        Skip: If the file can't be read, or one of its volumes has too few slices or nothing to see.
    """
    nifti: Any = import_module("hilum.client.intake.formats.nifti")  # brings nibabel, which few jobs need
    with nifti.open_nifti(job.path) as file:
        constant = [not _write(volume, write) for volume in file.volumes()]
        if file.shape[0] < MIN_SLICES:
            raise Skip(Reason.TOO_FEW_SLICES)
        if any(constant):
            raise Skip(Reason.CONSTANT_PIXELS)
        return {
            "shape": file.shape,
            "times": file.times,
            "affine": file.affine.ravel().tolist(),
            "spacing_mm": file.spacing_mm,
        }


def _write(volume: "NiftiVolume", write: Write) -> bool:
    """Slice by slice, as a volume of its stored values is what memory has room for.

    Gives False, and writes nothing, where all voxels are alike.
    """
    whole, low, high = True, math.inf, -math.inf
    for plane in volume.planes():
        low, high = min(low, plane.min()), max(high, plane.max())
        whole = whole and compact(plane.astype(np.float32)).dtype == np.int16
    if low == high:
        return False
    for plane in volume.planes():
        values = plane.astype(np.float32)
        write(values.astype(np.int16) if whole else values)
    return True


def volumes_read(_job: ReadVolumes, runs: list[Array], facts: Facts) -> VolumesRead:
    """Return the answer.

    Raises:
        ValueError: If it is none.
    """
    told = _FACTS.validate_python(facts)
    depth, *plane = told.shape
    if any(run.dtype not in (np.int16, np.float32) or list(run.shape[1:]) != plane for run in runs):
        raise ValueError("no volumes")
    volumes = tuple(run[first : first + depth] for run in runs for first in range(0, len(run), depth))
    alike = all(volume.shape == told.shape for volume in volumes)
    if len(volumes) != told.times or not alike or len(told.affine) != 16:  # noqa: PLR2004 - four rows of four
        raise ValueError("not the volumes that were announced")
    return VolumesRead(volumes, told.affine, told.spacing_mm)
