"""NIfTI label volumes: each value above zero a mask on the image that has the same voxels in the patient."""

from collections.abc import Iterator, Sequence

import numpy as np

from hilum.client.catalogue import Item
from hilum.client.intake.annotations.contents import LabelsRead
from hilum.client.intake.annotations.grid import Grid, Placement, on_one_grid, place
from hilum.client.intake.annotations.marks import Mark, cropped
from hilum.client.intake.annotations.naming import LabelMap
from hilum.client.intake.annotations.targets import the_one_that_fits
from hilum.client.intake.reasons import Reason, Skip


def mark_labels(found: LabelsRead, candidates: Sequence[Item], labels: LabelMap) -> Iterator[Mark]:
    """Give each value of a label volume as a mask.

    Args:
        found: The label volume.
        candidates: The items that it may mark.
        labels: What its values mean.

    Raises:
        Skip: If it is no label volume, or on another grid than the image.
    """
    item, (grid, placement) = the_one_that_fits(
        candidates, lambda item: on_one_grid(item, lambda grid: _same_grid(grid, found))
    )
    if found.values is None:
        raise Skip(Reason.MALFORMED_ANNOTATION)
    if found.numbers is None:
        raise Skip(Reason.EMPTY_ANNOTATION)
    laid = placement.laid(found.numbers)
    for number, value in enumerate(found.values, start=1):
        yield cropped(item.item_key, labels.of_value(value), "nifti", grid.upright(laid == number))


def _same_grid(grid: Grid, found: LabelsRead) -> Placement:
    placement = place(np.array(found.affine).reshape(4, 4), found.shape, grid)
    if tuple(found.shape[axis] for axis in placement.axes) != grid.shape:
        raise Skip(Reason.OFF_GRID)
    return placement
