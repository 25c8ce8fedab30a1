"""Reads a DICOM segmentation (PS3.3 section A.51 and C.8.20) in a decoding process: segments, places and pixels.

Shapes: H rows, W columns.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from hilum.client.intake.formats.contents import Segment
from hilum.client.intake.formats.ipc import Array, Facts, Write, as_bytes
from hilum.client.intake.formats.objects import check_size_and_syntax, code_in, items, numbers, text
from hilum.client.intake.instance import MAX_EDGE, MAX_FRAMES
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import RLE

SOP_CLASSES = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
"""Segmentation Storage and Label Map Segmentation Storage (PS3.4 table B.5-1)."""

FRACTION = 0.5
"""A voxel of a fractional segment belongs to it from this share of the largest value on."""

_MAX_SEGMENTS = 4096
_BACKGROUND = 0  # of a label map: what is in no segment (PS3.3 section C.8.20.2)
_UNSAID = math.nan


@dataclass(frozen=True)
class _Object:
    """All that is taken from one object but its pixels, so that its broken parts show before anything is made of them.

    Attributes:
        least: The lowest stored value that belongs to the segment of a frame; not for label maps.
        places: (frames, 13): segment, position, orientation, spacing, gap; not a number where the object does not say.
        sources: By frame; instances, series: of the object as a whole.
    """

    seg: highdicom.seg.Segmentation = field(repr=False)
    shape: tuple[int, int]
    fractional: bool
    least: float
    segments: list[Segment] = field(repr=False)
    places: npt.NDArray[np.float64]
    sources: list[str] = field(repr=False)
    instances: list[str] = field(repr=False)
    series: list[str] = field(repr=False)


def read_seg(path: Path, write: Write) -> Facts:
    """Write each frame, bits where it shows one segment and values where it is a label map, then the frames' places.

    Raises:
        Skip: If the whole object can't be taken.
    """
    check_size_and_syntax(path)
    try:
        found = _object(highdicom.seg.segread(path), path)
    except (Skip, MemoryError):
        raise
    except Exception:
        # highdicom raises what its checks happen to raise on objects that break the standard.
        raise Skip(Reason.MALFORMED_ANNOTATION) from None
    bits = not np.isnan(found.places[:, 0]).any()
    undecodable = []
    for frame in range(len(found.places)):
        try:
            stored = _stored(found, frame)
        except Skip:
            undecodable.append(frame)
            stored = np.zeros(found.shape, np.uint8)
        write(np.packbits(_inside(found, stored)) if bits else _segments(found, frame, stored))
    write(as_bytes(found.places))
    return {
        "kind": "seg",
        "shape": found.shape,
        "source": "seg_fractional" if found.fractional else "seg",
        "segments": [asdict(one) for one in found.segments],
        "sources": found.sources,
        "instances": found.instances,
        "series": found.series,
        "undecodable": undecodable,
        "bits": bits,
    }


def _stored(found: _Object, frame: int) -> Array:
    try:
        stored = found.seg.get_stored_frame(frame + 1)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException:  # a decoder in Rust panics with a BaseException
        raise Skip(Reason.UNDECODABLE_PIXELS) from None
    if stored.shape != found.shape:
        raise Skip(Reason.UNDECODABLE_PIXELS)
    return stored


def _inside(found: _Object, stored: Array) -> npt.NDArray[np.bool_]:
    """Return where a frame shows its segment."""
    return np.asarray(stored >= found.least)


def _segments(found: _Object, frame: int, stored: Array) -> Array:
    """Return the numbers of a label map; of a frame that names one segment, 1 where it shows it."""
    kind = np.uint8 if int(found.seg.BitsAllocated) <= 8 else np.uint16  # noqa: PLR2004 - bits
    if not np.isnan(found.places[frame, 0]):
        return _inside(found, stored).astype(kind)
    return np.where((stored >= 0) & (stored <= np.iinfo(kind).max), stored, _BACKGROUND).astype(kind)


def _object(seg: highdicom.seg.Segmentation, path: Path) -> _Object:
    _check_claims(seg, path)
    fractional = seg.segmentation_type.value == "FRACTIONAL"
    referenced = items(seg, "ReferencedSeriesSequence")
    frames = _frames(seg)
    common = next(iter(items(seg, "SharedFunctionalGroupsSequence")), Dataset())
    return _Object(
        seg=seg,
        shape=(int(seg.Rows), int(seg.Columns)),
        fractional=fractional,
        least=FRACTION * int(seg.MaximumFractionalValue) if fractional else 1,
        segments=[_segment(seg, number) for number in seg.segment_numbers if number != _BACKGROUND],
        places=np.array([_place(groups, common) for groups in frames], np.float64),
        sources=list(dict.fromkeys(uid for groups in frames for uid in _sources(groups))),
        instances=[
            text(instance, "ReferencedSOPInstanceUID")
            for one in referenced
            for instance in items(one, "ReferencedInstanceSequence")
        ],
        series=[text(one, "SeriesInstanceUID") for one in referenced],
    )


def _check_claims(seg: highdicom.seg.Segmentation, path: Path) -> None:
    """Check that the file can hold what it claims: nothing is filled in, and nothing is allocated for a lie."""
    rows, columns, frames = int(seg.Rows), int(seg.Columns), int(seg.NumberOfFrames)
    if not (0 < rows <= MAX_EDGE and 0 < columns <= MAX_EDGE and 0 < frames <= MAX_FRAMES):
        raise Skip(Reason.IMPLAUSIBLE_SIZE)
    if int(seg.number_of_segments) > _MAX_SEGMENTS:
        raise Skip(Reason.TOO_LARGE)
    claimed_bits = rows * columns * frames * int(seg.BitsAllocated)
    compressed = seg.file_meta.TransferSyntaxUID == RLE
    if not compressed and claimed_bits > path.stat().st_size * 8:
        raise Skip(Reason.TRUNCATED_PIXELS)


def _segment(seg: highdicom.seg.Segmentation, number: int) -> Segment:
    segment = seg.get_segment_description(number)
    code = code_in(
        segment, "SegmentedPropertyTypeCodeSequence", modifier="SegmentedPropertyTypeModifierCodeSequence"
    )
    return Segment(int(number), text(segment, "SegmentLabel"), code)


def _frames(seg: highdicom.seg.Segmentation) -> list[Dataset]:
    """Return the functional groups of each frame."""
    own = items(seg, "PerFrameFunctionalGroupsSequence")
    if not own:
        raise Skip(Reason.OFF_GRID)  # the tiles of a slide, in order: no place in the patient is told
    if len(own) != int(seg.NumberOfFrames):
        raise Skip(Reason.MALFORMED_ANNOTATION)
    return own


def _place(groups: Dataset, common: Dataset) -> list[float]:
    def group(keyword: str) -> Dataset:
        found = items(groups, keyword) or items(common, keyword)
        return found[0] if found else Dataset()

    measures, segment = group("PixelMeasuresSequence"), group("SegmentIdentificationSequence")
    gap = measures.get("SpacingBetweenSlices")
    return [
        int(segment.ReferencedSegmentNumber) if "ReferencedSegmentNumber" in segment else _UNSAID,
        *(numbers(group("PlanePositionSequence").get("ImagePositionPatient"), 3) or [_UNSAID] * 3),
        *(numbers(group("PlaneOrientationSequence").get("ImageOrientationPatient"), 6) or [_UNSAID] * 6),
        *(numbers(measures.get("PixelSpacing"), 2) or [_UNSAID] * 2),
        _UNSAID if gap is None else _said(float(gap)),
    ]


def _said(gap_mm: float) -> float:
    """Return a distance that the object states; one that is not a number is that of no image."""
    return 0.0 if math.isnan(gap_mm) else gap_mm


def _sources(groups: Dataset) -> Iterator[str]:
    for one in items(groups, "DerivationImageSequence"):
        for image in items(one, "SourceImageSequence"):
            yield text(image, "ReferencedSOPInstanceUID")
