"""Where an annotation's array lies on an item's grid: the same voxels in another order, or a refusal.

No array is resampled to find its place. Axes are LPS; an affine maps an array index (d, h, w, 1) to millimetres.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hilum.client.intake.planner import Tilt, shear_mask, tilt_told
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.state.catalogue import Item

T = TypeVar("T")
Affine = npt.NDArray[np.float64]

TOLERANCE_MM = 0.1  # what a corner may be off through rounded positions
_TOLERANCE_VOXELS = 0.25  # never more than this, where voxels are small


@dataclass(frozen=True)
class Grid:
    """Voxels of one item and their place in the patient.

    Attributes:
        tilt: Where these are the slices as they were stored, and the item was brought upright from them.
    """

    item_key: str
    shape: tuple[int, int, int]
    affine: Affine
    tilt: Tilt | None = None

    def upright(self, voxels: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Bring a mask on this grid to the item's own."""
        return voxels if self.tilt is None else shear_mask(voxels, self.tilt)

    @property
    def spacing_mm(self) -> npt.NDArray[np.float64]:
        """Distance between neighbours along each axis."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))


def grid_of(item: Item) -> Grid:
    """Return the grid of a volume.

    Raises:
        Skip: If the item has no place in the patient.
    """
    if item.kind != "volume" or not item.affine:
        raise Skip(Reason.OFF_GRID)
    depth, height, width = item.shape
    return Grid(item.item_key, (depth, height, width), np.array(item.affine).reshape(4, 4))


def on_one_grid(item: Item, fit: Callable[[Grid], T]) -> tuple[Grid, T]:
    """Fit to the grid of a volume; of one that was brought upright, first to that of its slices as they were stored.

    Raises:
        Skip: If the item has no place in the patient, or `fit` refuses every grid.
    """
    own = grid_of(item)
    told = json.loads(item.quality or "{}").get("tilt")
    if told is None:
        return own, fit(own)
    tilt = tilt_told(told)
    stored = Grid(item.item_key, tilt.shape, tilt.sheared, tilt)
    try:
        return stored, fit(stored)
    except Skip as skip:
        if skip.reason != Reason.OFF_GRID:
            raise
        return own, fit(own)


@dataclass(frozen=True)
class Placement:
    """How to lay an array onto a grid.

    Attributes:
        axes: For each axis of the grid, the axis of the array that runs along it.
        flipped: For each axis of the grid, whether the array runs against it.
        start: The grid's index of the laid array's first voxel.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    start: tuple[int, int, int]

    def laid(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array in the grid's order of axes; a view."""
        turned = array.transpose(self.axes)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]


def place(
    affine: Affine, shape: tuple[int, int, int], grid: Grid, *, loose_axis: int | None = None
) -> Placement:
    """Find where an array lies on a grid.

    Args:
        affine: Of the array.
        shape: Of the array; it may cover a part of the grid.
        grid: Of the item.
        loose_axis: The array's axis along which a tenth of a voxel is allowed, as slice positions may wander.

    Raises:
        Skip: If its voxels are not voxels of the grid.
    """
    with np.errstate(all="ignore"):
        exact = np.linalg.inv(grid.affine) @ affine
    if not np.isfinite(exact).all() or np.abs(exact).max() > 1e6:  # noqa: PLR2004 - no image has a million rows
        raise Skip(Reason.OFF_GRID)
    whole = np.rint(exact)
    turn = whole[:3, :3]
    if not np.array_equal(np.abs(turn) @ np.ones(3), np.ones(3)) or abs(round(np.linalg.det(turn))) != 1:
        raise Skip(Reason.OFF_GRID)
    axes = np.abs(turn).argmax(axis=1)
    last = np.array(shape) - 1
    corners = np.array(np.meshgrid(*((0, n) for n in last), indexing="ij")).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    off_mm = np.abs((exact - whole) @ corners)[:3].max(axis=1) * grid.spacing_mm
    allowed_mm = np.minimum(TOLERANCE_MM, _TOLERANCE_VOXELS * grid.spacing_mm)
    if loose_axis is not None:
        along = axes == loose_axis
        allowed_mm[along] = np.maximum(allowed_mm, 0.1 * grid.spacing_mm)[along]
    reached = (whole @ corners)[:3]
    first = reached.min(axis=1)
    inside = (first >= 0).all() and (reached.max(axis=1) < grid.shape).all()
    if (off_mm > allowed_mm).any() or not inside:
        raise Skip(Reason.OFF_GRID)
    negative = turn.sum(axis=1) < 0
    return Placement(
        (int(axes[0]), int(axes[1]), int(axes[2])),
        (bool(negative[0]), bool(negative[1]), bool(negative[2])),
        (int(first[0]), int(first[1]), int(first[2])),
    )
