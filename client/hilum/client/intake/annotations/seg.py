"""DICOM segmentations (PS3.3 section A.51 and C.8.20): each segment a mask on the grid of the image that it marks.

Shapes: D slices, H rows, W columns.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hilum.client.intake.annotations.grid import Affine, Grid, Placement, on_one_grid, place
from hilum.client.intake.annotations.marks import Mark, cropped
from hilum.client.intake.annotations.targets import Targets, the_one_that_fits
from hilum.client.intake.formats.contents import PlanePlace, SegRead
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.state.catalogue import Item

_SPACING_TOLERANCE = 0.01


def mark_segments(found: SegRead, targets: Targets, labels: LabelMap) -> Iterator[Mark]:
    """Give each segment as a mask, or why not.

    Raises:
        Skip: If the whole object can't be taken.
    """
    item, (grid, placements) = the_one_that_fits(
        _candidates(found, targets), lambda item: _fit(item, found.planes, found.shape)
    )
    for segment in found.segments:
        try:
            label = labels.of_object(segment.text, segment.code)
            voxels = _segment(
                found, segment.number, placements, item.shape[:2] if grid is None else grid.shape
            )
        except Skip as skip:
            yield skip.reason
            continue
        yield cropped(item.item_key, label, found.source, voxels if grid is None else grid.upright(voxels))


def _candidates(found: SegRead, targets: Targets) -> list[Item]:
    """Return the items that the object names: by the frames' source images, by its list of instances, by its series."""
    listed = targets.of_instances(found.sources) or targets.of_instances(found.instances)
    return listed or [item for uid in found.series for item in targets.of_series(uid)]


def _fit(
    item: Item, planes: Sequence[PlanePlace], shape: tuple[int, int]
) -> tuple[Grid | None, list[Placement]]:
    """Return where each frame lies on the item. An image without a place is fitted by its size alone, on no grid."""
    if item.kind == "image":
        if item.shape[:2] != shape:
            raise Skip(Reason.OFF_GRID)
        return None, [Placement((0, 1, 2), (False, False, False), (0, 0, 0)) for _ in planes]
    return on_one_grid(item, lambda grid: [_place_plane(plane, shape, grid) for plane in planes])


def _place_plane(plane: PlanePlace, shape: tuple[int, int], grid: Grid) -> Placement:
    if plane.position_mm is None or plane.orientation is None or plane.spacing_mm is None:
        raise Skip(Reason.OFF_GRID)
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    normal = np.cross(row, column)
    across = int(np.abs(normal @ (grid.affine[:3, :3] / grid.spacing_mm)).argmax())
    step_mm = grid.affine[:3, across]  # of a tilted stack not along the normal
    gap_mm = float(normal @ step_mm)
    if plane.gap_mm is not None and not any(
        math.isclose(abs(plane.gap_mm), abs(gap), rel_tol=_SPACING_TOLERANCE)
        for gap in (gap_mm, grid.spacing_mm[across])
    ):
        raise Skip(Reason.OFF_GRID)
    affine: Affine = np.eye(4)
    affine[:3, 0] = math.copysign(1.0, gap_mm) * step_mm
    affine[:3, 1] = column * plane.spacing_mm[0]
    affine[:3, 2] = row * plane.spacing_mm[1]
    affine[:3, 3] = plane.position_mm
    return place(affine, (1, *shape), grid, loose_axis=0)


def _segment(
    found: SegRead, number: int, placements: list[Placement], shape: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """Return one segment on the whole grid: (D, H, W), or (H, W) of an image.

    Raises:
        Skip: If it has no frame, or one can't be decoded.
    """
    if not any(plane.segment in {None, number} for plane in found.planes):
        raise Skip(Reason.EMPTY_ANNOTATION)
    flat = len(shape) == 2  # noqa: PLR2004 - rows and columns
    voxels = np.zeros((1, *shape) if flat else shape, bool)
    for frame, (plane, placement) in enumerate(zip(found.planes, placements, strict=True)):
        if plane.segment in {None, number}:
            if frame in found.undecodable:
                raise Skip(Reason.UNDECODABLE_PIXELS)
            shown = placement.laid(found.shown(number, frame)[np.newaxis])
            region = tuple(
                slice(start, start + size) for start, size in zip(placement.start, shown.shape, strict=True)
            )
            voxels[region] |= shown
    return voxels[0] if flat else voxels
