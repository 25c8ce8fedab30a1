"""The few typed facts that Hilum takes from a DICOM header, and nothing else.

Attributes are named as in DICOM PS3.6; their meaning is in PS3.3 sections C.7.6 (images), C.11 (look-up tables).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydicom
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from hilum.client.intake.reasons import Reason, Skip

Family = Literal["radiograph", "ct", "mr"]

# PS3.4 table B.5-1. Everything else is counted, not read.
_FAMILY_OF_SOP_CLASS: dict[str, Family] = {
    "1.2.840.10008.5.1.4.1.1.1": "radiograph",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1": "radiograph",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1": "radiograph",  # Digital X-Ray, for processing
    "1.2.840.10008.5.1.4.1.1.2": "ct",
    "1.2.840.10008.5.1.4.1.1.4": "mr",
}
_SYNTAXES = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless}
_MAX_EDGE = 16_384
_MAX_COMPRESSION = 64  # RLE reaches at most 64 : 1 on any data (PS3.5 annex G)

_WANTED = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID",
    "ImageType", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "PixelSpacing", "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
)  # fmt: skip


@dataclass(frozen=True)
class Window:
    """A VOI window (PS3.3 section C.11.2.1.2)."""

    center: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Header:
    """One instance's technical facts. The identifiers are for grouping in memory and never shown.

    Attributes:
        spacing_mm: Distance between rows and between columns, or None.
        position_mm: LPS position of the first voxel's centre, or None.
        orientation: Direction cosines of a row and of a column, or None.
        padding: Lowest and highest stored value that means "no data", or None.
    """

    sop_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    study_uid: str = field(repr=False)
    patient_id: str = field(repr=False)
    family: Family
    rows: int
    columns: int
    signed: bool
    inverted: bool
    slope: float
    intercept: float
    window: Window | None
    padding: tuple[int, int] | None
    spacing_mm: tuple[float, float] | None
    position_mm: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    localizer: bool


def read_header(path: Path) -> Header:
    """Read one file up to its pixels.

    Raises:
        Skip: With the reason why this file is no image that Hilum takes.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(140)
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    has_preamble = start[128:132] == b"DICM"
    if not has_preamble and start[:2] not in {b"\x08\x00", b"\x02\x00"}:
        raise Skip(Reason.NOT_DICOM)
    try:
        syntax = _transfer_syntax(path) if has_preamble else None
        _check_syntax(path, syntax)
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_WANTED))
        uids = _uids(dataset)
        try:
            return _extract(dataset, uids, size_bytes, compressed=syntax == RLELossless)
        except Skip as skip:
            raise Skip(skip.reason, uids) from None
    except Skip:
        raise
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    except (InvalidDicomError, EOFError):
        raise Skip(Reason.DAMAGED_HEADER) from None
    except Exception:
        # pydicom raises what its parsers happen to raise on broken input; the file is counted, not guessed at.
        raise Skip(Reason.DAMAGED_HEADER) from None


def _transfer_syntax(path: Path) -> str:
    meta = pydicom.filereader.read_file_meta_info(path)
    return str(meta.get("TransferSyntaxUID", ""))


def _check_syntax(path: Path, syntax: str | None) -> None:
    """Judge the syntax before the header is read: a deflated header inflates without bound.

    Raises:
        Skip: If it is not one that is read. A report or a film in another syntax is no image that Hilum would take,
            whatever the syntax, so that is the reason then.
    """
    if syntax is None or syntax in _SYNTAXES:
        return
    if not syntax:
        raise Skip(Reason.DAMAGED_HEADER)
    meta = pydicom.filereader.read_file_meta_info(path)
    known = str(meta.get("MediaStorageSOPClassUID", "")) in _FAMILY_OF_SOP_CLASS
    raise Skip(Reason.UNSUPPORTED_SYNTAX if known else Reason.OTHER_MODALITY)


def _uids(dataset: FileDataset) -> tuple[str, str, str]:
    sop, series, study = (
        str(dataset.get(name) or "").strip()
        for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    )
    return sop, series, study


def _extract(
    dataset: FileDataset, uids: tuple[str, str, str], size_bytes: int, *, compressed: bool
) -> Header:
    sop_class = str(dataset.get("SOPClassUID", ""))
    family = _FAMILY_OF_SOP_CLASS.get(sop_class)
    if family is None:
        raise Skip(Reason.OTHER_MODALITY if "Rows" in dataset else Reason.NOT_AN_IMAGE)
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    bits, stored = _whole(dataset, "BitsAllocated"), _whole(dataset, "BitsStored")
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    _check_pixels(dataset, photometric, bits, stored)
    if not (0 < rows <= _MAX_EDGE and 0 < columns <= _MAX_EDGE):
        raise Skip(Reason.IMPLAUSIBLE_SIZE)
    claimed_bytes = rows * columns * bits // 8
    if claimed_bytes > size_bytes * (_MAX_COMPRESSION if compressed else 1):
        raise Skip(Reason.TRUNCATED_PIXELS)
    if not all(uids):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    signed = _whole(dataset, "PixelRepresentation") == 1
    orientation = _numbers(dataset, "ImageOrientationPatient", 6)
    position = _numbers(dataset, "ImagePositionPatient", 3)
    spacing = _numbers(dataset, "PixelSpacing", 2) or _numbers(dataset, "ImagerPixelSpacing", 2)
    if spacing is not None and min(spacing) <= 0:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    image_type = [str(value).upper() for value in _sequence(dataset.get("ImageType"))]
    slope = _number(dataset, "RescaleSlope", 1.0)
    if slope == 0:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return Header(
        sop_uid=uids[0],
        series_uid=uids[1],
        study_uid=uids[2],
        patient_id=str(dataset.get("PatientID") or "") or uids[2],
        family=family,
        rows=rows,
        columns=columns,
        signed=signed,
        inverted=photometric == "MONOCHROME1",
        slope=slope,
        intercept=_number(dataset, "RescaleIntercept", 0.0),
        window=_window(dataset),
        padding=_padding(dataset),
        spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=orientation,
        localizer="LOCALIZER" in image_type,
    )


def _check_pixels(dataset: FileDataset, photometric: str, bits: int, stored: int) -> None:
    one_frame = str(dataset.get("NumberOfFrames") or 1).strip() == "1"
    grey = photometric in {"MONOCHROME1", "MONOCHROME2"} and _whole(dataset, "SamplesPerPixel") == 1
    depth = bits in {8, 16} and 0 < stored <= bits and _whole(dataset, "HighBit") == stored - 1
    if not (one_frame and grey and depth):
        raise Skip(Reason.UNSUPPORTED_PIXELS)


def _sequence(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _whole(dataset: FileDataset, name: str) -> int:
    value = dataset.get(name)
    if not isinstance(value, int):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return int(value)


def _number(dataset: FileDataset, name: str, default: float) -> float:
    numbers = _numbers(dataset, name, 1)
    return default if numbers is None else numbers[0]


def _numbers(dataset: FileDataset, name: str, count: int) -> tuple[float, ...] | None:
    """The first `count` values; None where the attribute is absent or empty.

    Raises:
        Skip: If it is there but no list of finite numbers that long.
    """
    values = _sequence(dataset.get(name))
    if len(values) == 0 or (len(values) == 1 and str(values[0]).strip() == ""):
        return None
    try:
        numbers = tuple(float(value) for value in values[:count])
    except (TypeError, ValueError):
        raise Skip(Reason.MISSING_ATTRIBUTE) from None
    if len(numbers) < count or not all(map(math.isfinite, numbers)):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return numbers


def _window(dataset: FileDataset) -> Window | None:
    center, width = _numbers(dataset, "WindowCenter", 1), _numbers(dataset, "WindowWidth", 1)
    if center is None or width is None or width[0] <= 0:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function == "SIGMOID":
        return Window(center[0], width[0], "SIGMOID")
    if function == "LINEAR_EXACT":
        return Window(center[0], width[0], "LINEAR_EXACT")
    return Window(center[0], width[0], "LINEAR") if width[0] > 1 else None


def _padding(dataset: FileDataset) -> tuple[int, int] | None:
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    other = limit if isinstance(limit, int) else value
    return min(value, other), max(value, other)
