"""NIfTI label volumes: each value above zero a mask on the volume with the same voxels in the patient, or on an image."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hilum.client.intake.annotations.grid import Grid, Placement, on_one_grid, place
from hilum.client.intake.annotations.marks import Mark, cropped
from hilum.client.intake.annotations.targets import the_one_that_fits
from hilum.client.intake.formats.contents import LabelsRead
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.state.catalogue import Item

_STRAIGHT = 1e-4
_Voxels = npt.NDArray[np.bool_]
_Lay = Callable[[_Voxels], _Voxels]


def mark_labels(found: LabelsRead, candidates: Sequence[Item], labels: LabelMap) -> Iterator[Mark]:
    """Give each value of a label volume as a mask.

    Args:
        found: The label volume.
        candidates: The items that it may mark.
        labels: What its values mean.

    Raises:
        Skip: If it is not a label volume, or on another grid than the image.
    """
    item, lay = the_one_that_fits(candidates, lambda item: _fit(item, found))
    if found.values is None:
        raise Skip(Reason.MALFORMED_ANNOTATION)
    if found.numbers is None:
        raise Skip(Reason.EMPTY_ANNOTATION)
    for number, value in enumerate(found.values, start=1):
        yield cropped(item.item_key, labels.of_value(value), "nifti", lay(found.numbers == number))


def _fit(item: Item, found: LabelsRead) -> _Lay:
    """Return how a mask of the label volume comes to lie on an item."""
    if item.kind == "image":
        _check_flat(item, found)
        return lambda voxels: voxels[0]
    grid, placement = on_one_grid(item, lambda grid: _same_grid(grid, found))
    return lambda voxels: grid.upright(placement.laid(voxels))


def _check_flat(item: Item, found: LabelsRead) -> None:
    """Check that a volume is one axial slice of the image's size: an image has no place in the patient.

    Raises:
        Skip: If it does not fit.
    """
    axes = np.array(found.affine).reshape(4, 4)[2::-1, :3]  # (d, h, w) runs along z, y and x
    aslant = np.abs(axes - np.diag(np.diag(axes))).max() > _STRAIGHT * np.abs(axes).max()
    if found.shape != (1, *item.shape[:2]) or aslant:
        raise Skip(Reason.OFF_GRID)


def _same_grid(grid: Grid, found: LabelsRead) -> Placement:
    placement = place(np.array(found.affine).reshape(4, 4), found.shape, grid)
    if tuple(found.shape[axis] for axis in placement.axes) != grid.shape:
        raise Skip(Reason.OFF_GRID)
    return placement
