"""From the tags of a file to the facts that the rest of intake builds on."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from hilum.client.intake.headers.header_values import (
    BLANKS,
    code_word,
    exactly,
    first_number,
    identifier_of,
    number_or,
    optional_number,
    optional_whole,
    seconds,
    shared_exactly,
    text_of,
    values_of,
    whole_number,
    words_of,
)
from hilum.client.intake.headers.pixel_header import check_sizes, pixel_format_of
from hilum.client.intake.headers.sop_classes import Supported, refusal, taken
from hilum.client.intake.headers.suv import suv_factor
from hilum.client.intake.headers.tags import Tags, Value
from hilum.client.intake.instance import (
    STACKED_FAMILIES,
    Contrast,
    Frame,
    Instance,
    Region,
    Window,
)
from hilum.client.intake.no_suv import NoSuv
from hilum.client.intake.quantity import quantity_of
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import SUPPORTED_SYNTAXES

Planes = tuple[tuple[Frame, ...], tuple[Region, ...]]

_COMPONENTS = {
    "M": "M", "P": "P", "R": "R", "I": "I",
    "MAGNITUDE": "M", "PHASE": "P", "REAL": "R", "IMAGINARY": "I",
}  # fmt: skip


_MOSAICS = frozenset({"MOSAIC", "VFRAME"})
_MAX_PIXEL_MM = 100.0  # a whole body of 2 m is thousands of pixels long
_NOT_BURNED_IN = frozenset({"", "NO", "N", "NONE", "FALSE", "0"})


def uids_of(tags: Tags) -> tuple[str, str, str]:
    """SOP, series and study UID; empty where the file has none."""
    get = tags.values.get
    return text_of(get("SOPInstanceUID")), text_of(get("SeriesInstanceUID")), text_of(get("StudyInstanceUID"))


def judge_syntax(tags: Tags) -> None:
    """Judge the syntax before anything else is believed.

    Raises:
        Skip: If it is not one that is read. A report in another syntax is not an image that Hilum would take, whatever the
            syntax, so that is the reason then.
    """
    if tags.syntax in SUPPORTED_SYNTAXES:
        return
    sop_class = tags.media_class or text_of(tags.get("SOPClassUID"))
    if taken(sop_class) is None:
        raise Skip(refusal(sop_class, has_rows=True), uids_of(tags))
    raise Skip(Reason.UNSUPPORTED_SYNTAX, uids_of(tags))


def needs_dataset(tags: Tags) -> bool:
    """Tell whether facts of this image stand in functional groups, ultrasound regions or a private header."""
    kind = taken(text_of(tags.get("SOPClassUID")))
    if kind is None:
        return False
    regions = kind.family == "ultrasound" and tags.get("SequenceOfUltrasoundRegions") is True
    return has_groups(tags, kind) or regions or is_mosaic(tags, kind)


def has_groups(tags: Tags, kind: Supported) -> bool:
    """Tell whether geometry stands in functional groups (PS3.3 section C.7.6.16)."""
    return kind.grouped or (kind.frames and tags.get("SharedFunctionalGroupsSequence") is True)


def is_mosaic(tags: Tags, kind: Supported) -> bool:
    """Tell whether this is a mosaic: many slices tiled into one plane. Siemens calls it MOSAIC, United Imaging VFRAME."""
    return (
        kind.family == "mr" and not kind.grouped and not _MOSAICS.isdisjoint(words_of(tags.get("ImageType")))
    )


def instance_of(tags: Tags, planes: Callable[[Frame], Planes] | None = None) -> Instance:
    """Judge the tags of one file and make its facts of them.

    Args:
        tags: However they were read.
        planes: Gives frames and ultrasound regions of an object that needs its whole data set, from what the top
            level says of its first frame; asked only once the rest has been found good.

    Raises:
        Skip: With the reason why this file is not an image that Hilum takes, and its UIDs.
    """
    judge_syntax(tags)
    uids = uids_of(tags)
    try:
        return _instance(tags, uids, planes)
    except Skip as skip:
        raise Skip(skip.reason, uids) from None


def _instance(tags: Tags, uids: tuple[str, str, str], planes: Callable[[Frame], Planes] | None) -> Instance:
    get = tags.values.get
    sop_class = text_of(get("SOPClassUID"))
    kind = taken(sop_class)
    if kind is None and not sop_class and taken(tags.media_class) is not None:
        # The file says outside that it is an image, and inside nothing that can be read, or not what it is.
        raise Skip(Reason.MISSING_ATTRIBUTE if "Rows" in tags.values else Reason.DAMAGED_HEADER)
    if kind is None:
        raise Skip(refusal(sop_class, has_rows="Rows" in tags.values))
    pixels = pixel_format_of(tags, kind)
    check_sizes(tags, pixels)
    if not all(uids):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    image_type = words_of(get("ImageType"))
    first = Frame(
        0,
        _spacing(tags, kind),
        optional_number(get("SliceThickness")),
        *_place(tags, kind),
        _slope(get("RescaleSlope")),
        number_or(get("RescaleIntercept"), 0.0),
        _window(tags),
        _contrast(tags, image_type, kind),
        _quantity(tags, image_type) if kind.family == "ct" else "",
    )
    regions: tuple[Region, ...] = ()
    if planes is not None and needs_dataset(tags):
        frames, regions = planes(first)
    else:
        frames = frames_in_time(first, tags)
    return Instance(
        *uids,
        identifier_of(get("PatientID")) or uids[2],
        text_of(get("FrameOfReferenceUID")),
        sop_class,
        kind.family,
        image_type,
        pixels,
        frames,
        _padding(tags, kind),
        any(get(table) is True for table in _TABLES),
        is_mosaic(tags, kind),
        regions,
        optional_number(get("FrameTime")) if pixels.frames > 1 else None,
        tags.pixels.offset_bytes if tags.pixels is not None else None,
        _burned_in(get("BurnedInAnnotation")),
        text_of(get("LossyImageCompression")) == "01",
        _suv(tags, kind) if kind.family == "pet" else None,
    )


def _suv(tags: Tags, kind: Supported) -> float | NoSuv:
    """Return what makes SUV of a PET's values. A table of its modality stands in for slope and intercept, and may give anything."""
    if kind.grouped:
        return NoSuv.ENHANCED
    return NoSuv.OTHER_UNITS if tags.get("ModalityLUTSequence") is True else suv_factor(tags)


def _quantity(tags: Tags, image_type: tuple[str, ...]) -> str:
    """Return what the values of a CT measure. A table of its modality stands in for slope and intercept, and may give anything."""
    get = tags.values.get
    has_table = get("ModalityLUTSequence") is True
    return quantity_of(
        "ct",
        text_of(get("RescaleType")),
        image_type,
        slope=bool(values_of(get("RescaleSlope"))) and not has_table,
        intercept=bool(values_of(get("RescaleIntercept"))) and not has_table,
    )


def frames_in_time(first: Frame, tags: Tags) -> tuple[Frame, ...]:
    """Return the frames of an object without functional groups: the one, or a cine.

    The place of a cine's first frame is not that of the others.
    """
    count = tags.get("NumberOfFrames") or 1
    if count == 1:
        return (first,)
    nowhere = replace(first, position_mm=None, orientation=None)
    return tuple(replace(nowhere, index=index) for index in range(int(str(count))))


_TABLES = ("ModalityLUTSequence", "VOILUTSequence", "RedPaletteColorLookupTableDescriptor")


def _burned_in(value: Value) -> bool:
    """Tell whether the file says of itself that text stands in its pixels: anything but a plain no."""
    if value is None:
        return False
    return any(word.strip(BLANKS).upper() not in _NOT_BURNED_IN for word in map(str, values_of(value)))


def _slope(value: Value) -> float:
    slope = number_or(value, 1.0)
    if slope == 0:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return slope


def _place(tags: Tags, kind: Supported) -> tuple[tuple[float, float, float] | None, tuple[float, ...] | None]:
    """Position and orientation; of an image that makes no slice, None where they are no plain numbers.

    Raises:
        Skip: If those of a slice are none.
    """
    try:
        point = exactly(tags.get("ImagePositionPatient"), 3)
        directions = shared_exactly(tags.get("ImageOrientationPatient"), 6)
    except Skip:
        if kind.family in STACKED_FAMILIES:
            raise
        return None, None
    return None if point is None else (point[0], point[1], point[2]), directions


def _spacing(tags: Tags, kind: Supported) -> tuple[float, float] | None:
    """Distance of rows and of columns: in the patient, else at the detector (PS3.3 section 10.7.1.3), else of the film.

    A slice has no detector: only its spacing in the patient counts. Any other image is good without a spacing, so one
    that can't be true is as none.

    Raises:
        Skip: If that of a slice is no two positive numbers.
    """
    if kind.family in STACKED_FAMILIES:
        found = shared_exactly(tags.get("PixelSpacing"), 2)
        if found is None:
            return None
        if min(found) <= 0:
            raise Skip(Reason.MISSING_ATTRIBUTE)
        return found[0], found[1]
    names = ["PixelSpacing", "ImagerPixelSpacing"]
    names += ["NominalScannedPixelSpacing"] if kind.family == "secondary" else []
    usable = (spacing for name in names if (spacing := _usable_spacing(tags.get(name))) is not None)
    return next(usable, None)


@lru_cache(maxsize=1024)
def _usable_spacing(value: Value) -> tuple[float, float] | None:
    try:
        found = exactly(value, 2)
    except Skip:
        return None
    return (found[0], found[1]) if found and 0 < min(found) <= max(found) <= _MAX_PIXEL_MM else None


def _window(tags: Tags) -> Window | None:
    """Return the first window; None where it is no two numbers, for an image is good without."""
    center, width = first_number(tags.get("WindowCenter")), first_number(tags.get("WindowWidth"))
    if center is None or width is None or width <= 0:
        return None
    return _shared_window(center, width, text_of(tags.get("VOILUTFunction")).upper())


@lru_cache(maxsize=1024)
def _shared_window(center: float, width: float, function: str) -> Window | None:
    if function == "SIGMOID":
        return Window(center, width, "SIGMOID")
    if function == "LINEAR_EXACT":
        return Window(center, width, "LINEAR_EXACT")
    return Window(center, width, "LINEAR") if width > 1 else None


def _padding(tags: Tags, kind: Supported) -> tuple[int, int] | None:
    """Lowest and highest padding value, whatever VR they are written in.

    Raises:
        Skip: If those of a slice are not whole numbers: padding that nobody knows would count as tissue.
    """
    if tags.values.get("PixelPaddingValue") is None:
        return None
    try:
        value = whole_number(tags.get("PixelPaddingValue"))
        limit = whole_number(tags.get("PixelPaddingRangeLimit"))
    except Skip:
        if kind.family in STACKED_FAMILIES:
            raise
        return None
    if value is None:
        return None
    other = value if limit is None else limit
    return min(value, other), max(value, other)


def _contrast(tags: Tags, image_type: tuple[str, ...], kind: Supported) -> Contrast:
    """Return what the top level says about echo, phase, coil and time; odd values count as absent."""
    get = tags.values.get
    return Contrast(
        identifier_of(get("Manufacturer")),
        image_type,
        _component(get("ComplexImageComponent"), image_type) if kind.family == "mr" else "",
        identifier_of(get("ReceiveCoilName")),
        optional_whole(get("EchoNumbers")),
        optional_number(get("EchoTime")),
        optional_number(get("RepetitionTime")),
        optional_number(get("InversionTime")),
        optional_number(get("FlipAngle")),
        optional_number(get("DiffusionBValue")),
        _direction(get("DiffusionGradientOrientation")),
        optional_number(get("TemporalPositionIdentifier")),
        optional_number(get("TriggerTime")),
        optional_whole(get("AcquisitionNumber")),
        seconds(get("AcquisitionTime")),
        optional_whole(get("InstanceNumber")),
        **(_exposure(tags) if kind.family == "ct" else {}),
    )


def _exposure(tags: Tags) -> dict[str, Any]:
    """Return what tells one CT exposure or reconstruction from another."""
    return {
        "kvp_kv": optional_number(tags.get("KVP")),
        "kernel": text_of(tags.get("ConvolutionKernel")),
        "contrast_agent": text_of(tags.get("ContrastBolusAgent")),
    }


def _direction(value: Value) -> tuple[float, ...] | None:
    try:
        return exactly(value, 3)
    except Skip:
        return None


@lru_cache(maxsize=1024)
def _component(stated: Value, image_type: tuple[str, ...]) -> str:
    """Return which part of complex data: as (0008,9208) says, else by the third and later values of the image type."""
    for word in (code_word(stated), *image_type[2:]):
        if word in _COMPONENTS:
            return _COMPONENTS[word]
    return ""
