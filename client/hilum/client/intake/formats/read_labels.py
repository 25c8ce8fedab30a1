"""Reads a NIfTI label volume in a decoding process: numbered labels, slice by slice."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.client.intake.formats.ipc import Facts, Write
from hilum.client.intake.formats.nifti import NiftiVolume, open_nifti
from hilum.client.intake.reasons import Reason, Skip

MAX_VALUES = 256
"""More different values than this are not labels."""


def read_labels(path: Path, write: Write) -> Facts:
    """Write, for each slice, the place of each voxel's value among all values above zero, from 1; 0 stays.

    Raises:
        Skip: If it is no single volume of whole numbers.
    """
    with open_nifti(path) as file:
        if file.times != 1:
            raise Skip(Reason.MALFORMED_ANNOTATION)
        (volume,) = file.volumes()
        values = _values(volume)
        if values is not None and len(values):
            kind = np.uint8 if len(values) <= np.iinfo(np.uint8).max else np.uint16
            for plane in volume.planes():
                write(np.where(plane == 0, 0, np.searchsorted(values, plane) + 1).astype(kind))
        return {
            "shape": file.shape,
            "affine": file.affine.ravel().tolist(),
            "values": None if values is None else [int(value) for value in values],
        }


def _values(volume: NiftiVolume) -> npt.NDArray[Any] | None:
    """Return the different values but 0, rising; None where these are not labels: too many, or below 0.

    Raises:
        Skip: If one is not a whole number.
    """
    found: npt.NDArray[Any] | None = None
    labels = True
    for plane in volume.planes():
        if plane.dtype.kind == "f" and not np.array_equal(np.rint(plane), plane):
            raise Skip(Reason.MALFORMED_ANNOTATION)
        marked = np.unique(plane[plane != 0])
        if labels:
            found = marked if found is None else np.union1d(found, marked)
            labels = len(found) <= MAX_VALUES and not (found < 0).any()
    return found if labels else None
