"""From the tags of a file to the facts that the rest of intake builds on."""

import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from hilum.client.intake.instance import (
    STACKED_FAMILIES,
    Contrast,
    Frame,
    Instance,
    PixelFormat,
    PixelKind,
    Region,
    Window,
)
from hilum.client.intake.quantity import quantity_of
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sop_classes import Taken, refusal, taken
from hilum.client.intake.tags import Tags, Value
from hilum.client.intake.transfer_syntaxes import (
    BIT_BY_BIT,
    DEFLATED,
    EXPLICIT_BIG,
    GREATEST_COMPRESSION,
    JPEG_2000,
    NATIVE,
    READ,
    RLE,
)

Planes = tuple[tuple[Frame, ...], tuple[Region, ...]]

_MAX_EDGE = 16_384
_MAX_FRAMES = 65_536
_ITEM_BYTES = 8  # the head of an encapsulated frame (PS3.5 section A.4)
_TIME = re.compile(
    r"(\d\d):?(?:(\d\d):?(?:(\d\d(?:\.\d{1,6})?))?)?"
)  # PS3.5 table 6.2-1, with the colons of ACR-NEMA
_COMPONENTS = {
    "M": "M", "P": "P", "R": "R", "I": "I",
    "MAGNITUDE": "M", "PHASE": "P", "REAL": "R", "IMAGINARY": "I",
}  # fmt: skip


_MOSAICS = frozenset({"MOSAIC", "VFRAME"})
_PLAIN_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_BLANKS = " \0\t\r\n\f\v"
_MAX_PIXEL_MM = 100.0  # a whole body of 2 m is thousands of pixels long
_NOT_BURNED_IN = frozenset({"", "NO", "N", "NONE", "FALSE", "0"})


def uids_of(tags: Tags) -> tuple[str, str, str]:
    """SOP, series and study UID; empty where the file has none."""
    get = tags.values.get
    return _name(get("SOPInstanceUID")), _name(get("SeriesInstanceUID")), _name(get("StudyInstanceUID"))


def judge_syntax(tags: Tags) -> None:
    """Judge the syntax before anything else is believed.

    Raises:
        Skip: If it is not one that is read. A report in another syntax is no image that Hilum would take, whatever the
            syntax, so that is the reason then.
    """
    if tags.syntax in READ:
        return
    sop_class = tags.media_class or _name(tags.get("SOPClassUID"))
    if taken(sop_class) is None:
        raise Skip(refusal(sop_class, has_rows=True), uids_of(tags))
    raise Skip(Reason.UNSUPPORTED_SYNTAX, uids_of(tags))


def needs_dataset(tags: Tags) -> bool:
    """Whether facts of this image stand in functional groups, ultrasound regions or a private header."""
    kind = taken(_name(tags.get("SOPClassUID")))
    if kind is None:
        return False
    regions = kind.family == "ultrasound" and tags.get("SequenceOfUltrasoundRegions") is True
    return has_groups(tags, kind) or regions or is_mosaic(tags, kind)


def has_groups(tags: Tags, kind: Taken) -> bool:
    """Whether geometry stands in functional groups (PS3.3 section C.7.6.16)."""
    return kind.grouped or (kind.frames and tags.get("SharedFunctionalGroupsSequence") is True)


def is_mosaic(tags: Tags, kind: Taken) -> bool:
    """Whether this is a mosaic: many slices tiled into one plane. Siemens calls it MOSAIC, United Imaging VFRAME."""
    return kind.family == "mr" and not kind.grouped and not _MOSAICS.isdisjoint(_words(tags.get("ImageType")))


def instance_of(tags: Tags, planes: Callable[[Frame], Planes] | None = None) -> Instance:
    """Judge the tags of one file and make its facts of them.

    Args:
        tags: However they were read.
        planes: Gives frames and ultrasound regions of an object that needs its whole data set, from what the top
            level says of its first frame; asked only once the rest has been found good.

    Raises:
        Skip: With the reason why this file is no image that Hilum takes, and its UIDs.
    """
    judge_syntax(tags)
    uids = uids_of(tags)
    try:
        return _instance(tags, uids, planes)
    except Skip as skip:
        raise Skip(skip.reason, uids) from None


def _instance(tags: Tags, uids: tuple[str, str, str], planes: Callable[[Frame], Planes] | None) -> Instance:
    get = tags.values.get
    sop_class = _name(get("SOPClassUID"))
    kind = taken(sop_class)
    if kind is None and not sop_class and taken(tags.media_class) is not None:
        # The file says outside that it is an image, and inside nothing that can be read, or not what it is.
        raise Skip(Reason.MISSING_ATTRIBUTE if "Rows" in tags.values else Reason.DAMAGED_HEADER)
    if kind is None:
        raise Skip(refusal(sop_class, has_rows="Rows" in tags.values))
    pixels = _pixel_format(tags, kind)
    _check_sizes(tags, pixels)
    if not all(uids):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    image_type = _words(get("ImageType"))
    first = Frame(
        0,
        _spacing(tags, kind),
        _optional(get("SliceThickness")),
        *_place(tags, kind),
        _slope(get("RescaleSlope")),
        _number(get("RescaleIntercept"), 0.0),
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
        _patient(get("PatientID")) or uids[2],
        _name(get("FrameOfReferenceUID")),
        sop_class,
        kind.family,
        image_type,
        pixels,
        frames,
        _padding(tags, kind),
        any(get(table) is True for table in _TABLES),
        is_mosaic(tags, kind),
        regions,
        _optional(get("FrameTime")) if pixels.frames > 1 else None,
        tags.pixels.offset_bytes if tags.pixels is not None else None,
        _burned_in(get("BurnedInAnnotation")),
        _name(get("LossyImageCompression")) == "01",
    )


def _quantity(tags: Tags, image_type: tuple[str, ...]) -> str:
    """What the values of a CT measure. A table of its modality stands in for slope and intercept, and may give anything."""
    get = tags.values.get
    has_table = get("ModalityLUTSequence") is True
    return quantity_of(
        "ct",
        _name(get("RescaleType")),
        image_type,
        slope=bool(_values_of(get("RescaleSlope"))) and not has_table,
        intercept=bool(_values_of(get("RescaleIntercept"))) and not has_table,
    )


def frames_in_time(first: Frame, tags: Tags) -> tuple[Frame, ...]:
    """The frames of an object without functional groups: the one, or a cine.

    The place of a cine's first frame is not that of the others.
    """
    count = tags.get("NumberOfFrames") or 1
    if count == 1:
        return (first,)
    nowhere = replace(first, position_mm=None, orientation=None)
    return tuple(replace(nowhere, index=index) for index in range(int(str(count))))


def _pixel_format(tags: Tags, kind: Taken) -> PixelFormat:
    """Rows, columns and depth, of a kind that can be read.

    Raises:
        Skip: If one is missing, or the pixels are of a kind that is not read.
    """
    get = tags.values.get
    rows, columns, bits, stored = get("Rows"), get("Columns"), get("BitsAllocated"), get("BitsStored")
    photometric = get("PhotometricInterpretation")
    frames = get("NumberOfFrames") or 1
    samples, high, signed = get("SamplesPerPixel"), get("HighBit"), get("PixelRepresentation")
    number = "whole" if tags.pixels is None else _KINDS.get(tags.pixels.vr, "whole")
    if not (isinstance(rows, int) and isinstance(columns, int) and isinstance(bits, int)):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    if number != "whole":
        stored, high, signed = bits, bits - 1, 0
    if not isinstance(stored, int):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    if not isinstance(frames, int) or frames < 1 or (frames > 1 and not kind.frames):
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    name = _photometric(photometric)
    expected = _SAMPLES.get(name)
    if expected is None or (name not in _GREY and not kind.colour):
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    if not isinstance(samples, int):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    if samples != expected or not 0 < stored <= bits:
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    if not (isinstance(high, int) and isinstance(signed, int)):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    if not _is_read(tags.syntax, name, number, (bits, stored, high)):
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    planar = samples > 1 and get("PlanarConfiguration") == 1
    return _shared_format(
        tags.syntax, rows, columns, frames, samples, name, planar, bits, stored, high, signed == 1, number
    )


def _is_read(syntax: str, photometric: str, kind: PixelKind, depth: tuple[int, int, int]) -> bool:
    """Whether samples of this allocated, stored and high bit come out right (PS3.5 sections 8.1 and 8.2).

    Floating point pixels are grey and never encapsulated (PS3.3 sections C.7.6.24 and C.7.6.25). JPEG and JPEG-LS hold
    no more than 16 bits, and a code stream no bits below the sample. Of 32 bits in big endian it is not agreed whether
    the words (VR OW) or the bytes within them are swapped.
    """
    bits, stored, high = depth
    if kind != "whole":
        return bits == _FLOAT_BITS[kind] and photometric in _GREY and syntax in NATIVE | {DEFLATED}
    if high != stored - 1 and not (stored <= high < bits and syntax in BIT_BY_BIT):
        return False
    return bits in (8, 16) or (bits == _WIDEST and photometric != "PALETTE COLOR" and syntax in _WIDE)


_KINDS: dict[str, PixelKind] = {"OF": "float", "OD": "double"}
_FLOAT_BITS = {"float": 32, "double": 64}
_WIDEST = 32
_WIDE = (BIT_BY_BIT | JPEG_2000) - {EXPLICIT_BIG}
_TABLES = ("ModalityLUTSequence", "VOILUTSequence", "RedPaletteColorLookupTableDescriptor")
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3} | dict.fromkeys(
    ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"), 3
)
_shared_format = lru_cache(maxsize=1024)(PixelFormat)  # most files of an archive are alike


def _photometric(value: Value) -> str:
    return value.strip().upper() if isinstance(value, str) else ""


def _check_sizes(tags: Tags, pixels: PixelFormat) -> None:
    """What the header claims must fit in the file, before anything is allocated for it.

    Raises:
        Skip: If it does not.
    """
    edges = 0 < pixels.rows <= _MAX_EDGE and 0 < pixels.columns <= _MAX_EDGE
    if not edges or pixels.frames > _MAX_FRAMES:
        raise Skip(Reason.IMPLAUSIBLE_SIZE)
    samples = (
        2 if pixels.photometric == "YBR_FULL_422" and tags.syntax in BIT_BY_BIT - {RLE} else pixels.samples
    )
    frame_bytes = pixels.rows * pixels.columns * samples * pixels.bits_allocated // 8
    element = tags.pixels
    if element is None:
        raise Skip(Reason.TRUNCATED_PIXELS)
    held_bytes = tags.size_bytes - element.offset_bytes
    if tags.syntax in GREATEST_COMPRESSION:
        held_bytes *= GREATEST_COMPRESSION[tags.syntax]
        if pixels.frames * _ITEM_BYTES > tags.size_bytes:
            raise Skip(Reason.TRUNCATED_PIXELS)
    if frame_bytes * pixels.frames > held_bytes:
        raise Skip(Reason.TRUNCATED_PIXELS)


def _name(value: Value) -> str:
    """One string of what should be one string."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip(_BLANKS)
    return _joined(value).strip(_BLANKS)


def _patient(value: Value) -> str:
    """The patient's identifier without the padding around it: only ever hashed.

    Blanks before and behind a value of VR LO are no part of it (PS3.5 section 6.2), and writers pad with NUL too. Case
    is a part of it.
    """
    if isinstance(value, tuple):
        parts = [str(one).strip(_BLANKS) for one in value]
        while parts and not parts[-1]:
            parts.pop()
        value = str(parts) if len(parts) > 1 else "".join(parts)
    if value is None:
        return ""
    text = (value if isinstance(value, str) else _joined(value)).strip().strip(_BLANKS)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _burned_in(value: Value) -> bool:
    """Whether the file says of itself that text stands in its pixels: anything but a plain no."""
    if value is None:
        return False
    return any(word.strip(_BLANKS).upper() not in _NOT_BURNED_IN for word in map(str, _values_of(value)))


def _joined(value: Value) -> str:
    if value is None:
        return ""
    return str(list(value)) if isinstance(value, tuple) else str(value)


@lru_cache(maxsize=1024)
def _words(value: Value) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(
        str(word).strip(_BLANKS).upper() for word in (value if isinstance(value, tuple) else (value,))
    )


def _plain_number(value: str | float) -> float | None:
    """A finite number, also where it is written as text (another VR than the standard's); else None."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        text = value.strip(_BLANKS)
        value = float(text) if _PLAIN_NUMBER.fullmatch(text) else math.nan
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _values_of(value: Value) -> tuple[str | int | float, ...]:
    """All values of an attribute; none where it is absent or empty. Long text (VR UT) is not parted by pydicom."""
    if value is None:
        return ()
    if isinstance(value, str):
        if "\\" in value:
            return tuple(value.split("\\"))
        return (value,) if value.strip(_BLANKS) else ()
    if isinstance(value, tuple):
        return () if len(value) == 1 and str(value[0]).strip(_BLANKS) == "" else value
    return (value,)


def _numbers(value: Value, count: int) -> tuple[float, ...] | None:
    """The first `count` values; None where the attribute is absent or empty.

    Raises:
        Skip: If it is there but no list of finite numbers that long.
    """
    if value is None or not (values := _values_of(value)):
        return None
    numbers = tuple([number for one in values[:count] if (number := _plain_number(one)) is not None])
    if len(numbers) < count:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return numbers


def _exactly(value: Value, count: int) -> tuple[float, ...] | None:
    """The values of an attribute that has `count` of them; None where it is absent or empty.

    Raises:
        Skip: If it is there but no list of just so many finite numbers.
    """
    if value is None:
        return None
    if len(_values_of(value)) > count:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return _numbers(value, count)


_shared_numbers = lru_cache(maxsize=1024)(_exactly)


def _number(value: Value, default: float) -> float:
    numbers = _numbers(value, 1)
    return default if numbers is None else numbers[0]


def _optional(value: Value) -> float | None:
    """One finite number, or None: of an attribute that an image can do without."""
    if value is None:
        return None
    values = _values_of(value)
    return _plain_number(values[0]) if len(values) == 1 else None


def _count(value: Value) -> int | None:
    """One whole number, or None: of an attribute that an image can do without."""
    if value is None or type(value) is int:
        return value
    number = _optional(value)
    return int(number) if number is not None and number.is_integer() else None


def _slope(value: Value) -> float:
    slope = _number(value, 1.0)
    if slope == 0:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return slope


def _place(tags: Tags, kind: Taken) -> tuple[tuple[float, float, float] | None, tuple[float, ...] | None]:
    """Position and orientation; of an image that makes no slice, None where they are no plain numbers.

    Raises:
        Skip: If those of a slice are none.
    """
    try:
        point = _exactly(tags.get("ImagePositionPatient"), 3)
        directions = _shared_numbers(tags.get("ImageOrientationPatient"), 6)
    except Skip:
        if kind.family in STACKED_FAMILIES:
            raise
        return None, None
    return None if point is None else (point[0], point[1], point[2]), directions


def _spacing(tags: Tags, kind: Taken) -> tuple[float, float] | None:
    """Distance of rows and of columns: in the patient, else at the detector (PS3.3 section 10.7.1.3), else of the film.

    A slice has no detector: only its spacing in the patient counts. Any other image is good without a spacing, so one
    that can't be true is as none.

    Raises:
        Skip: If that of a slice is no two positive numbers.
    """
    if kind.family in STACKED_FAMILIES:
        found = _shared_numbers(tags.get("PixelSpacing"), 2)
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
        found = _exactly(value, 2)
    except Skip:
        return None
    return (found[0], found[1]) if found and 0 < min(found) <= max(found) <= _MAX_PIXEL_MM else None


def _window(tags: Tags) -> Window | None:
    """The first window; None where it is no two numbers, for an image is good without."""
    center, width = _first_number(tags.get("WindowCenter")), _first_number(tags.get("WindowWidth"))
    if center is None or width is None or width <= 0:
        return None
    return _shared_window(center, width, _name(tags.get("VOILUTFunction")).upper())


def _first_number(value: Value) -> float | None:
    if value is None:
        return None
    values = _values_of(value)
    return _plain_number(values[0]) if values else None


@lru_cache(maxsize=1024)
def _shared_window(center: float, width: float, function: str) -> Window | None:
    if function == "SIGMOID":
        return Window(center, width, "SIGMOID")
    if function == "LINEAR_EXACT":
        return Window(center, width, "LINEAR_EXACT")
    return Window(center, width, "LINEAR") if width > 1 else None


def _padding(tags: Tags, kind: Taken) -> tuple[int, int] | None:
    """Lowest and highest padding value, whatever VR they are written in.

    Raises:
        Skip: If those of a slice are no whole numbers: padding that nobody knows would count as tissue.
    """
    if tags.values.get("PixelPaddingValue") is None:
        return None
    try:
        value = _one_whole(tags.get("PixelPaddingValue"))
        limit = _one_whole(tags.get("PixelPaddingRangeLimit"))
    except Skip:
        if kind.family in STACKED_FAMILIES:
            raise
        return None
    if value is None:
        return None
    other = value if limit is None else limit
    return min(value, other), max(value, other)


def _one_whole(value: Value) -> int | None:
    """A whole number, told once or several times; None where it is absent.

    Raises:
        Skip: If it is anything else.
    """
    if value is None or type(value) is int:
        return value
    numbers = {_plain_number(one) for one in _values_of(value)}
    if not numbers:
        return None
    number = numbers.pop()
    if numbers or number is None or not number.is_integer():
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    return int(number)


def _contrast(tags: Tags, image_type: tuple[str, ...], kind: Taken) -> Contrast:
    """What the top level says about echo, phase, coil and time; odd values count as absent."""
    get = tags.values.get
    return Contrast(
        _patient(get("Manufacturer")),
        image_type,
        _component(get("ComplexImageComponent"), image_type) if kind.family == "mr" else "",
        _patient(get("ReceiveCoilName")),
        _count(get("EchoNumbers")),
        _optional(get("EchoTime")),
        _optional(get("RepetitionTime")),
        _optional(get("InversionTime")),
        _optional(get("FlipAngle")),
        _optional(get("DiffusionBValue")),
        _direction(get("DiffusionGradientOrientation")),
        _optional(get("TemporalPositionIdentifier")),
        _optional(get("TriggerTime")),
        _count(get("AcquisitionNumber")),
        seconds(get("AcquisitionTime")),
        _count(get("InstanceNumber")),
        **(_exposure(tags) if kind.family == "ct" else {}),
    )


def _exposure(tags: Tags) -> dict[str, Any]:
    """What tells one CT exposure or reconstruction from another."""
    return {
        "kvp_kv": _optional(tags.get("KVP")),
        "kernel": _name(tags.get("ConvolutionKernel")),
        "contrast_agent": _name(tags.get("ContrastBolusAgent")),
    }


def _direction(value: Value) -> tuple[float, ...] | None:
    try:
        return _exactly(value, 3)
    except Skip:
        return None


@lru_cache(maxsize=1024)
def _component(stated: Value, image_type: tuple[str, ...]) -> str:
    """Which part of complex data: as (0008,9208) says, else by the third and later values of the image type."""
    for word in (_photometric(stated), *image_type[2:]):
        if word in _COMPONENTS:
            return _COMPONENTS[word]
    return ""


def seconds(value: Value) -> float | None:
    """A time of day (VR TM) in seconds after midnight, or None where it is absent or malformed."""
    found = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    hours, minutes, rest = found.groups("0")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)
