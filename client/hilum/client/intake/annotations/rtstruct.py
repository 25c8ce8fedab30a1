"""DICOM structure sets (PS3.3 section C.8.8.6): each region's contours, filled on the grid of the image that they mark."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from hilum.client.catalogue import Item
from hilum.client.intake.annotations.grid import Grid, grid_of
from hilum.client.intake.annotations.marks import Mark, cropped
from hilum.client.intake.annotations.naming import Code, LabelMap
from hilum.client.intake.annotations.objects import check_size_and_syntax, code_in, items, text
from hilum.client.intake.annotations.polygon import filled
from hilum.client.intake.annotations.targets import Targets, the_one_that_fits
from hilum.client.intake.reasons import Reason, Skip

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"  # RT Structure Set Storage

_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
_FLATNESS = 0.1  # of the slice distance: how far a contour's points may leave their plane
_HALF_SLICE = 0.5
_MIN_POINTS = 3
_FARTHEST_MM = 1e6  # no scanner is a kilometre long; not a number is not less either
_MAX_POINTS = 20_000_000


@dataclass(frozen=True)
class _Region:
    """One region of interest.

    Attributes:
        contours: Each (N, 3), LPS millimetres.
        sources: SOP instance UIDs of the images that its contours were drawn on.
    """

    name: str = field(repr=False)
    code: Code | None
    contours: tuple[npt.NDArray[np.float64], ...] = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)


def read_rtstruct(path: Path, targets: Targets, labels: LabelMap) -> Iterator[Mark]:
    """Give each region of interest as a mask, or why not.

    Raises:
        Skip: If the whole object can't be taken.
    """
    check_size_and_syntax(path)
    try:
        dataset = pydicom.dcmread(path)
        regions = [_region(one, dataset) for one in items(dataset, "ROIContourSequence")]
        series = _series(dataset)
    except Skip:
        raise
    except MemoryError:
        raise Skip(Reason.TOO_LARGE) from None
    except Exception:
        # pydicom raises what its parsers happen to raise on broken input.
        raise Skip(Reason.MALFORMED_ANNOTATION) from None
    if not regions:
        raise Skip(Reason.EMPTY_ANNOTATION)
    for region in regions:
        yield region if isinstance(region, Reason) else _mark(region, series, targets, labels)


def _mark(region: _Region, series: list[str], targets: Targets, labels: LabelMap) -> Mark:
    try:
        label = labels.of_object(region.name, region.code)
        candidates = targets.of_instances(region.sources) or [
            item for uid in series for item in targets.of_series(uid)
        ]
        item, voxels = the_one_that_fits(candidates, lambda item: _voxels(item, region))
    except Skip as skip:
        return skip.reason
    return cropped(item.item_key, label, "rtstruct", voxels)


def _series(dataset: Dataset) -> list[str]:
    return [
        text(series, "SeriesInstanceUID")
        for frame in items(dataset, "ReferencedFrameOfReferenceSequence")
        for study in items(frame, "RTReferencedStudySequence")
        for series in items(study, "RTReferencedSeriesSequence")
    ]


def _region(contours: Dataset, dataset: Dataset) -> _Region | Reason:
    number = text(contours, "ReferencedROINumber")
    names = [
        text(one, "ROIName")
        for one in items(dataset, "StructureSetROISequence")
        if text(one, "ROINumber") == number
    ]
    codes = [
        code_in(one, "RTROIIdentificationCodeSequence")
        for one in items(dataset, "RTROIObservationsSequence")
        if text(one, "ReferencedROINumber") == number
    ]
    outlines = items(contours, "ContourSequence")
    if not outlines:
        return Reason.EMPTY_ANNOTATION
    if not all(text(one, "ContourGeometricType").upper() in _CLOSED for one in outlines):
        return Reason.UNSUPPORTED_CONTOUR
    points = [_points(one) for one in outlines]
    if any(len(one) < _MIN_POINTS for one in points):
        return Reason.UNSUPPORTED_CONTOUR
    if sum(map(len, points)) > _MAX_POINTS:
        return Reason.TOO_LARGE
    sources = {
        text(image, "ReferencedSOPInstanceUID")
        for one in outlines
        for image in items(one, "ContourImageSequence")
    }
    code = next((one for one in codes if one is not None), None)
    return _Region(names[0] if names else "", code, tuple(points), tuple(sorted(sources)))


def _points(outline: Dataset) -> npt.NDArray[np.float64]:
    values = np.array([float(value) for value in outline.ContourData], np.float64)
    if len(values) % 3 or not (np.abs(values) < _FARTHEST_MM).all():
        raise Skip(Reason.MALFORMED_ANNOTATION)
    return values.reshape(-1, 3)


def _voxels(item: Item, region: _Region) -> npt.NDArray[np.bool_]:
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
    """The slice on which a contour lies, within half a slice, and its exact depth."""
    depths = index[:, 0]
    depth = float(depths.mean())
    plane = round(depth)
    if np.ptp(depths) > 2 * _FLATNESS or not 0 <= plane < grid.shape[0] or abs(depth - plane) > _HALF_SLICE:
        raise Skip(Reason.OFF_GRID)
    reach = index[:, 1:]
    if (reach < -_HALF_SLICE - 1).any() or (reach > np.array(grid.shape[1:]) + _HALF_SLICE).any():
        raise Skip(Reason.OFF_GRID)
    return plane, depth
