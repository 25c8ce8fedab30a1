"""DICOM structure sets (PS3.3 section C.8.8.6): each region's contours, filled on the grid of the image that they mark."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hilum.client.intake.annotations.grid import Grid, grid_of
from hilum.client.intake.annotations.marks import Mark, cropped
from hilum.client.intake.annotations.polygon import filled
from hilum.client.intake.annotations.targets import Targets, the_one_that_fits
from hilum.client.intake.formats.contents import Region, StructuresRead
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.state.catalogue import Item

_FLATNESS = 0.1  # of the slice distance: how far a contour's points may leave their plane
_HALF_SLICE = 0.5


def mark_structures(found: StructuresRead, targets: Targets, labels: LabelMap) -> Iterator[Mark]:
    """Give each region of interest as a mask, or why not."""
    for region in found.regions:
        yield region if isinstance(region, Reason) else _mark(region, found.series, targets, labels)


def _mark(region: Region, series: Sequence[str], targets: Targets, labels: LabelMap) -> Mark:
    try:
        label = labels.of_object(region.name, region.code)
        candidates = targets.of_instances(region.sources) or [
            item for uid in series for item in targets.of_series(uid)
        ]
        item, voxels = the_one_that_fits(candidates, lambda item: _voxels(item, region))
    except Skip as skip:
        return skip.reason
    return cropped(item.item_key, label, "rtstruct", voxels)


def _voxels(item: Item, region: Region) -> npt.NDArray[np.bool_]:
    """Fill a region's contours, plane by plane; where contours of one plane overlap, the even-odd rule holds.

    A hole may so be a contour inside another, or the end of a keyhole's channel.

    Raises:
        Skip: If a contour is not in a plane of the grid.
    """
    grid = grid_of(item)
    to_index = np.linalg.inv(grid.affine)
    voxels = np.zeros(grid.shape, bool)
    depth_of_plane: dict[int, float] = {}
    seen: set[bytes] = set()
    for points in region.contours:
        index = points @ to_index[:3, :3].T + to_index[:3, 3]
        plane, depth = _plane(index, grid)
        if abs(depth_of_plane.setdefault(plane, depth) - depth) > _FLATNESS:
            raise Skip(Reason.OFF_GRID)  # two planes of contours to one slice: drawn on another image
        outline = np.ascontiguousarray(index[:, 1:])
        same = f"{plane}|".encode() + outline.tobytes()
        if same not in seen:  # a contour that is written twice is one contour
            seen.add(same)
            voxels[plane] ^= filled(outline, grid.shape[1:])
    return voxels


def _plane(index: npt.NDArray[np.float64], grid: Grid) -> tuple[int, float]:
    """Return the slice on which a contour lies, within half a slice, and its exact depth."""
    depths = index[:, 0]
    depth = float(depths.mean())
    plane = round(depth)
    if np.ptp(depths) > 2 * _FLATNESS or not 0 <= plane < grid.shape[0] or abs(depth - plane) > _HALF_SLICE:
        raise Skip(Reason.OFF_GRID)
    reach = index[:, 1:]
    if (reach < -_HALF_SLICE - 1).any() or (reach > np.array(grid.shape[1:]) + _HALF_SLICE).any():
        raise Skip(Reason.OFF_GRID)
    return plane, depth
