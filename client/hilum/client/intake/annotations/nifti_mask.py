"""NIfTI label volumes: each value above zero a mask on the image that has the same voxels in the patient."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.client.catalogue import Item
from hilum.client.intake.annotations.grid import Placement, grid_of, place
from hilum.client.intake.annotations.marks import Mark, cropped
from hilum.client.intake.annotations.naming import LabelMap
from hilum.client.intake.annotations.targets import the_one_that_fits
from hilum.client.intake.nifti import NiftiFile, read_nifti
from hilum.client.intake.reasons import Reason, Skip

MAX_VALUES = 256
"""More different values than this are no labels."""


def read_nifti_mask(path: Path, candidates: Sequence[Item], labels: LabelMap) -> Iterator[Mark]:
    """Give each value of a label volume as a mask.

    Args:
        path: The label volume.
        candidates: The items that it may mark.
        labels: What its values mean.

    Raises:
        Skip: If it is no label volume, or on another grid than the image.
    """
    if not candidates:
        raise Skip(Reason.UNKNOWN_IMAGE)
    file = read_nifti(path)
    if len(file.volumes) != 1:
        raise Skip(Reason.MALFORMED_ANNOTATION)
    values = _whole(file.volumes[0])
    item, placement = the_one_that_fits(candidates, lambda item: _same_grid(item, file))
    laid = placement.laid(values)
    found = [int(value) for value in np.unique(laid) if value != 0]
    if not found:
        raise Skip(Reason.EMPTY_ANNOTATION)
    if len(found) > MAX_VALUES or found[0] < 0:
        raise Skip(Reason.MALFORMED_ANNOTATION)
    for value in found:
        yield cropped(item.item_key, labels.of_value(value), "nifti", laid == value)


def _whole(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if volume.dtype.kind == "f" and not np.array_equal(np.rint(volume), volume):
        raise Skip(Reason.MALFORMED_ANNOTATION)
    return volume


def _same_grid(item: Item, file: NiftiFile) -> Placement:
    grid = grid_of(item)
    depth, height, width = file.volumes[0].shape
    placement = place(file.affine, (depth, height, width), grid)
    if placement.laid(file.volumes[0]).shape != grid.shape:
        raise Skip(Reason.OFF_GRID)
    return placement
