"""DICOM segmentations (PS3.3 section A.51 and C.8.20): each segment a mask on the grid of the image that it marks.

Shapes: D slices, H rows, W columns.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from hilum.client.catalogue import Item, Source
from hilum.client.intake.annotations.grid import Affine, Grid, Placement, grid_of, place
from hilum.client.intake.annotations.marks import Mark, cropped
from hilum.client.intake.annotations.naming import Code, LabelMap
from hilum.client.intake.annotations.objects import check_size_and_syntax, code_in, items, numbers, text
from hilum.client.intake.annotations.targets import Targets, the_one_that_fits
from hilum.client.intake.reasons import Reason, Skip

SOP_CLASSES = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
"""Segmentation Storage and Label Map Segmentation Storage (PS3.4 table B.5-1)."""

FRACTION = 0.5
"""A voxel of a fractional segment belongs to it from this share of the largest value on."""

_MAX_EDGE = 16_384
_MAX_FRAMES = 1 << 17
_MAX_SEGMENTS = 4096
_BACKGROUND = 0  # of a label map: what is in no segment (PS3.3 section C.8.20.2)
_SPACING_TOLERANCE = 0.01


@dataclass(frozen=True)
class _Plane:
    """One frame's place.

    Attributes:
        number: Of the frame, from 1.
        segment: That it shows, or None in a label map.
        position_mm: LPS position of the first voxel's centre, or None for an image without one.
        gap_mm: Distance to the next plane where the object states it, or None.
    """

    number: int
    segment: int | None
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    gap_mm: float | None
    sources: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class _Object:
    """All that is taken from one object but its pixels, so that its broken parts show before anything is made of them.

    Attributes:
        least: The lowest stored value that belongs to the segment of a frame; not for label maps.
        segments: Number to label text and code.
        instances: SOP instance UIDs, series: series instance UIDs, that the object refers to as a whole.
    """

    seg: highdicom.seg.Segmentation = field(repr=False)
    shape: tuple[int, int]
    source: Source
    least: float
    segments: dict[int, tuple[str, Code | None]] = field(repr=False)
    planes: list[_Plane]
    instances: tuple[str, ...] = field(repr=False)
    series: tuple[str, ...] = field(repr=False)


def read_seg(path: Path, targets: Targets, labels: LabelMap) -> Iterator[Mark]:
    """Give each segment as a mask, or why not.

    Raises:
        Skip: If the whole object can't be taken.
    """
    check_size_and_syntax(path)
    try:
        found = _object(highdicom.seg.segread(path), path)
    except Skip:
        raise
    except MemoryError:
        raise Skip(Reason.TOO_LARGE) from None
    except Exception:
        # highdicom raises what its checks happen to raise on objects that break the standard.
        raise Skip(Reason.MALFORMED_ANNOTATION) from None
    item, placements = the_one_that_fits(
        _candidates(found, targets), lambda item: _fit(item, found.planes, found.shape)
    )
    for number, (name, code) in found.segments.items():
        try:
            label = labels.of_object(name, code)
            voxels = _segment(found, number, placements, item)
        except Skip as skip:
            yield skip.reason
            continue
        yield cropped(item.item_key, label, found.source, voxels)


def _object(seg: highdicom.seg.Segmentation, path: Path) -> _Object:
    _check_claims(seg, path)
    fractional = seg.segmentation_type.value == "FRACTIONAL"
    referenced = items(seg, "ReferencedSeriesSequence")
    return _Object(
        seg=seg,
        shape=(int(seg.Rows), int(seg.Columns)),
        source="seg_fractional" if fractional else "seg",
        least=FRACTION * int(seg.MaximumFractionalValue) if fractional else 1,
        segments={
            number: _description(seg, number) for number in seg.segment_numbers if number != _BACKGROUND
        },
        planes=_planes(seg),
        instances=tuple(
            text(instance, "ReferencedSOPInstanceUID")
            for one in referenced
            for instance in items(one, "ReferencedInstanceSequence")
        ),
        series=tuple(text(one, "SeriesInstanceUID") for one in referenced),
    )


def _check_claims(seg: highdicom.seg.Segmentation, path: Path) -> None:
    """Whether the file can hold what it claims: nothing is filled in, and nothing is allocated for a lie."""
    rows, columns, frames = int(seg.Rows), int(seg.Columns), int(seg.NumberOfFrames)
    if not (0 < rows <= _MAX_EDGE and 0 < columns <= _MAX_EDGE and 0 < frames <= _MAX_FRAMES):
        raise Skip(Reason.IMPLAUSIBLE_SIZE)
    if int(seg.number_of_segments) > _MAX_SEGMENTS:
        raise Skip(Reason.TOO_LARGE)
    claimed_bits = rows * columns * frames * int(seg.BitsAllocated)
    compressed = seg.file_meta.TransferSyntaxUID == RLELossless
    if not compressed and claimed_bits > path.stat().st_size * 8:
        raise Skip(Reason.TRUNCATED_PIXELS)


def _description(seg: highdicom.seg.Segmentation, number: int) -> tuple[str, Code | None]:
    segment = seg.get_segment_description(number)
    code = code_in(
        segment, "SegmentedPropertyTypeCodeSequence", modifier="SegmentedPropertyTypeModifierCodeSequence"
    )
    return text(segment, "SegmentLabel"), code


def _planes(seg: highdicom.seg.Segmentation) -> list[_Plane]:
    shared = items(seg, "SharedFunctionalGroupsSequence")
    own = items(seg, "PerFrameFunctionalGroupsSequence")
    if not own:
        raise Skip(Reason.OFF_GRID)  # the tiles of a slide, in order: no place in the patient is told
    if len(own) != int(seg.NumberOfFrames):
        raise Skip(Reason.MALFORMED_ANNOTATION)
    common = shared[0] if shared else Dataset()
    return [_plane(number, groups, common) for number, groups in enumerate(own, start=1)]


def _plane(number: int, groups: Dataset, common: Dataset) -> _Plane:
    def group(keyword: str) -> Dataset:
        found = items(groups, keyword) or items(common, keyword)
        return found[0] if found else Dataset()

    measures, segment = group("PixelMeasuresSequence"), group("SegmentIdentificationSequence")
    gap = measures.get("SpacingBetweenSlices")
    derivation = items(groups, "DerivationImageSequence")
    return _Plane(
        number=number,
        segment=int(segment.ReferencedSegmentNumber) if "ReferencedSegmentNumber" in segment else None,
        position_mm=numbers(group("PlanePositionSequence").get("ImagePositionPatient"), 3),
        orientation=numbers(group("PlaneOrientationSequence").get("ImageOrientationPatient"), 6),
        spacing_mm=numbers(measures.get("PixelSpacing"), 2),
        gap_mm=float(gap) if gap is not None else None,
        sources=tuple(
            text(image, "ReferencedSOPInstanceUID")
            for one in derivation
            for image in items(one, "SourceImageSequence")
        ),
    )


def _candidates(found: _Object, targets: Targets) -> list[Item]:
    """The items that the object names: by the frames' source images, by its list of instances, by its series."""
    by_frame = targets.of_instances(uid for plane in found.planes for uid in plane.sources)
    listed = by_frame or targets.of_instances(found.instances)
    return listed or [item for uid in found.series for item in targets.of_series(uid)]


def _fit(item: Item, planes: list[_Plane], shape: tuple[int, int]) -> list[Placement]:
    """Where each frame lies on the item. An image without a place is fitted by its size alone."""
    if item.kind == "image":
        if item.shape[:2] != shape:
            raise Skip(Reason.OFF_GRID)
        return [Placement((0, 1, 2), (False, False, False), (0, 0, 0)) for _ in planes]
    grid = grid_of(item)
    return [_place_plane(plane, shape, grid) for plane in planes]


def _place_plane(plane: _Plane, shape: tuple[int, int], grid: Grid) -> Placement:
    if plane.position_mm is None or plane.orientation is None or plane.spacing_mm is None:
        raise Skip(Reason.OFF_GRID)
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    normal = np.cross(row, column)
    across = int(np.abs(normal @ (grid.affine[:3, :3] / grid.spacing_mm)).argmax())
    gap_mm = float(grid.spacing_mm[across])
    if plane.gap_mm is not None and not math.isclose(abs(plane.gap_mm), gap_mm, rel_tol=_SPACING_TOLERANCE):
        raise Skip(Reason.OFF_GRID)
    affine: Affine = np.eye(4)
    affine[:3, 0] = normal * gap_mm
    affine[:3, 1] = column * plane.spacing_mm[0]
    affine[:3, 2] = row * plane.spacing_mm[1]
    affine[:3, 3] = plane.position_mm
    return place(affine, (1, *shape), grid, loose_axis=0)


def _segment(found: _Object, number: int, placements: list[Placement], item: Item) -> npt.NDArray[np.bool_]:
    """One segment on the item's whole grid.

    Raises:
        Skip: If it has no frame, or one can't be decoded.
    """
    if not any(plane.segment in {None, number} for plane in found.planes):
        raise Skip(Reason.EMPTY_ANNOTATION)
    flat = item.kind == "image"
    depth, height, width = (1, *item.shape[:2]) if flat else item.shape
    voxels = np.zeros((depth, height, width), bool)
    for plane, placement in zip(found.planes, placements, strict=True):
        if plane.segment in {None, number}:
            frame = placement.laid(_shown(found, number, plane)[np.newaxis])
            region = tuple(
                slice(start, start + size) for start, size in zip(placement.start, frame.shape, strict=True)
            )
            voxels[region] |= frame
    return voxels[0] if flat else voxels


def _shown(found: _Object, number: int, plane: _Plane) -> npt.NDArray[np.bool_]:
    try:
        stored = found.seg.get_stored_frame(plane.number)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a decoder in Rust panics with a BaseException
        raise Skip(Reason.UNDECODABLE_PIXELS) from None
    if stored.shape != found.shape:
        raise Skip(Reason.UNDECODABLE_PIXELS)
    return np.asarray(stored == number if plane.segment is None else stored >= found.least)
