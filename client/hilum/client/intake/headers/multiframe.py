"""The frames of a multi-frame object, from its functional groups; the calibrated regions of an ultrasound image.

The macros are in PS3.3 sections C.7.6.16 (general), C.8.13.5 (MR), C.8.15.3 (CT) and C.8.24 (ultrasound volume).
A value that stands in a frame's own groups counts before one that is shared by all frames.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydicom.dataset import Dataset

from hilum.client.intake.instance import Contrast, Family, Frame, Region, Window
from hilum.client.intake.quantity import quantity_of
from hilum.client.intake.reasons import Reason, Skip

MULTIFRAME_TAGS = (
    0x00280008,  # NumberOfFrames
    0x52009229,  # SharedFunctionalGroupsSequence
    0x52009230,  # PerFrameFunctionalGroupsSequence
    0x00186011,  # SequenceOfUltrasoundRegions
)
"""What a reader with `specific_tags` has to ask for, besides what it asks of every image."""

_MAX_FRAMES = 100_000
_MAX_REGIONS = 64
_MAX_EDGE = 1 << 16
_MM_PER_CM = 10.0
_UNIT_CM = 3  # physical units (0018,6024): centimetres
_TWO_DIMENSIONAL = 1  # region spatial format (0018,6012)
_COMPONENTS = {"MAGNITUDE": "M", "PHASE": "P", "REAL": "R", "IMAGINARY": "I"}
_SECONDS_PER_HOUR, _SECONDS_PER_MINUTE = 3600, 60
_TIME_DIGITS = 6  # HHMMSS

# pydicom parses sequences when they are asked for, and raises what its parsers happen to raise.
_PARSER_ERRORS = (
    RecursionError,
    AttributeError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    NotImplementedError,
)


def frames_of(dataset: Dataset, family: Family) -> tuple[Frame, ...]:
    """Return each frame's place, rescale and contrast, in the order of the file.

    An object without functional groups (a cine) gives frames that have a spacing and no place.

    Raises:
        Skip: `UNSUPPORTED_MULTIFRAME` where groups and frames do not match or a group is malformed;
            `IMPLAUSIBLE_SIZE` where more frames are claimed than an object can hold.
    """
    try:
        return _frames(dataset, family)
    except _PARSER_ERRORS:
        raise Skip(Reason.UNSUPPORTED_MULTIFRAME) from None


def _frames(dataset: Dataset, family: Family) -> tuple[Frame, ...]:
    count = int(dataset.get("NumberOfFrames") or 1)
    if count < 1:
        raise Skip(Reason.UNSUPPORTED_MULTIFRAME)
    if count > _MAX_FRAMES:
        raise Skip(Reason.IMPLAUSIBLE_SIZE)
    per_frame = _items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = _items(dataset, "SharedFunctionalGroupsSequence")
    if not per_frame and not shared:
        spacing = _spacing(dataset)
        contrast = Contrast(vendor=_text(dataset, "Manufacturer"), image_type=_types(dataset, "ImageType"))
        slope, intercept, quantity = _rescale(_Groups(Dataset(), Dataset(), dataset), family)
        window = _window(dataset)
        return tuple(
            Frame(k, spacing, None, None, None, slope, intercept, window, contrast, quantity)
            for k in range(count)
        )
    if len(per_frame) != count or len(shared) > 1:
        raise Skip(Reason.UNSUPPORTED_MULTIFRAME)
    common = shared[0] if shared else Dataset()
    return tuple(_frame(k, _Groups(own, common, dataset), family) for k, own in enumerate(per_frame))


class _Groups:
    """The functional groups of one frame: its own first, then the shared ones."""

    def __init__(self, own: Dataset, shared: Dataset, whole: Dataset) -> None:
        self.own = own
        self.shared = shared
        self.whole = whole

    def macro(self, *names: str) -> Dataset:
        """Return the first item of the first sequence that is there; an empty data set where none is."""
        for name in names:
            for place in (self.own, self.shared):
                items = _items(place, name)
                if items:
                    return items[0]
        return Dataset()


def _frame(index: int, groups: _Groups, family: Family) -> Frame:
    measures = groups.macro("PixelMeasuresSequence")
    position = _numbers(groups.macro("PlanePositionSequence"), "ImagePositionPatient", 3)
    if position is None:
        position = _numbers(groups.macro("PlanePositionVolumeSequence"), "ImagePositionVolume", 3)
    orientation = _numbers(groups.macro("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    if orientation is None:
        orientation = _numbers(groups.macro("PlaneOrientationVolumeSequence"), "ImageOrientationVolume", 6)
    slope, intercept, quantity = _rescale(groups, family)
    contrast = _contrast(groups)
    return Frame(
        index=index,
        spacing_mm=_spacing(measures),
        thickness_mm=_number(measures, "SliceThickness"),
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=orientation,
        slope=slope,
        intercept=intercept,
        window=_window(groups.macro("FrameVOILUTSequence")),
        contrast=contrast,
        quantity=quantity,
    )


def _contrast(groups: _Groups) -> Contrast:
    content = groups.macro("FrameContentSequence")
    echo = groups.macro("MREchoSequence")
    timing = groups.macro("MRTimingAndRelatedParametersSequence")
    diffusion = groups.macro("MRDiffusionSequence")
    kind = groups.macro("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
    modifier = groups.macro("MRModifierSequence")
    # Legacy converted objects keep what has no macro of its own here (PS3.3 section C.7.6.16.2.25).
    legacy = groups.macro("UnassignedPerFrameConvertedAttributesSequence")
    legacy_shared = groups.macro("UnassignedSharedConvertedAttributesSequence")
    reconstruction = groups.macro("CTReconstructionSequence")
    inversion = _number(modifier, "InversionTimes")
    return Contrast(
        vendor=_text(groups.whole, "Manufacturer"),
        image_type=_types(kind, "FrameType") or _types(groups.whole, "ImageType"),
        component=_component(kind, groups.whole),
        coil=_text(groups.macro("MRReceiveCoilSequence"), "ReceiveCoilName"),
        echo_number=_whole(legacy, "EchoNumbers"),
        echo_time_ms=_first(_number(echo, "EffectiveEchoTime"), _number(legacy, "EchoTime")),
        repetition_time_ms=_first(
            _number(timing, "RepetitionTime"),
            _number(legacy, "RepetitionTime"),
            _number(legacy_shared, "RepetitionTime"),
        ),
        inversion_time_ms=_first(inversion, _number(legacy, "InversionTime")),
        flip_angle_deg=_first(_number(timing, "FlipAngle"), _number(legacy_shared, "FlipAngle")),
        b_value=_number(diffusion, "DiffusionBValue"),
        gradient=_gradient(diffusion),
        temporal_position=_first(
            _number(content, "TemporalPositionIndex"),
            _number(groups.macro("TemporalPositionSequence"), "TemporalPositionTimeOffset"),
            _number(legacy, "TemporalPositionIdentifier"),
        ),
        trigger_time_ms=_first(
            _number(groups.macro("CardiacSynchronizationSequence"), "NominalCardiacTriggerDelayTime"),
            _number(legacy, "TriggerTime"),
        ),
        acquisition_number=_first_whole(
            _whole(content, "FrameAcquisitionNumber"), _whole(legacy, "AcquisitionNumber")
        ),
        acquisition_time_s=_seconds(_text(content, "FrameAcquisitionDateTime")),
        instance_number=_whole(legacy, "InstanceNumber"),
        stack=_text(content, "StackID"),
        kvp_kv=_first(
            _number(groups.macro("CTXRayDetailsSequence"), "KVP"),
            _number(legacy, "KVP"),
            _number(legacy_shared, "KVP"),
        ),
        kernel=_text(reconstruction, "ConvolutionKernel")
        or _text(legacy, "ConvolutionKernel")
        or _text(legacy_shared, "ConvolutionKernel"),
    )


def _component(kind: Dataset, whole: Dataset) -> str:
    stated = _text(kind, "ComplexImageComponent") or _text(whole, "ComplexImageComponent")
    return _COMPONENTS.get(stated.upper(), "")


def _gradient(diffusion: Dataset) -> tuple[float, ...] | None:
    for item in _items(diffusion, "DiffusionGradientDirectionSequence")[:1]:
        return _numbers(item, "DiffusionGradientOrientation", 3)
    return None


def regions_of(dataset: Dataset) -> tuple[Region, ...]:
    """Return the calibrated regions of an ultrasound image; empty where the file has none (PS3.3 section C.8.5.5).

    Raises:
        Skip: `DAMAGED_HEADER` where a region can't be read or lies outside of any image.
    """
    try:
        return tuple(_regions(dataset))
    except _PARSER_ERRORS:
        raise Skip(Reason.DAMAGED_HEADER) from None


def _regions(dataset: Dataset) -> Iterator[Region]:
    items = _items(dataset, "SequenceOfUltrasoundRegions")
    if len(items) > _MAX_REGIONS:
        raise Skip(Reason.DAMAGED_HEADER)
    for item in items:
        ends = tuple(_whole(item, f"RegionLocation{name}") for name in ("MinY0", "MinX0", "MaxY1", "MaxX1"))
        if None in ends:
            raise Skip(Reason.DAMAGED_HEADER)
        row_first, column_first, row_last, column_last = (int(end) for end in ends if end is not None)
        if not (0 <= row_first <= row_last < _MAX_EDGE and 0 <= column_first <= column_last < _MAX_EDGE):
            raise Skip(Reason.DAMAGED_HEADER)
        yield Region(row_first, column_first, row_last, column_last, _region_spacing(item))


def _region_spacing(item: Dataset) -> tuple[float, float] | None:
    units = _whole(item, "PhysicalUnitsXDirection"), _whole(item, "PhysicalUnitsYDirection")
    plane = _whole(item, "RegionSpatialFormat") == _TWO_DIMENSIONAL and units == (_UNIT_CM, _UNIT_CM)
    across, down = _number(item, "PhysicalDeltaX"), _number(item, "PhysicalDeltaY")
    if not plane or not across or not down:
        return None
    return abs(down) * _MM_PER_CM, abs(across) * _MM_PER_CM


def _items(dataset: Dataset, name: str) -> Sequence[Dataset]:
    value = dataset.get(name)
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise Skip(Reason.UNSUPPORTED_MULTIFRAME)
    return value


def _values(dataset: Dataset, name: str) -> Sequence[Any]:
    value = dataset.get(name)
    if value is None or value == "":
        return ()
    if isinstance(value, str):  # long text (VR UT) is not parted by pydicom
        return value.split("\\")
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)


def _numbers(dataset: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers, or None where the attribute is absent or empty."""
    values = _values(dataset, name)
    if len(values) == 0:
        return None
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise Skip(Reason.UNSUPPORTED_MULTIFRAME)
    return numbers


def _number(dataset: Dataset, name: str) -> float | None:
    values = _values(dataset, name)
    if len(values) == 0:
        return None
    number = float(values[0])
    if not math.isfinite(number):
        raise Skip(Reason.UNSUPPORTED_MULTIFRAME)
    return number


def _whole(dataset: Dataset, name: str) -> int | None:
    number = _number(dataset, name)
    return None if number is None else int(number)


def _first(*numbers: float | None) -> float | None:
    return next((number for number in numbers if number is not None), None)


def _first_whole(*numbers: int | None) -> int | None:
    return next((number for number in numbers if number is not None), None)


def _text(dataset: Dataset, name: str) -> str:
    values = _values(dataset, name)
    return str(values[0]).strip() if len(values) > 0 else ""


def _types(dataset: Dataset, name: str) -> tuple[str, ...]:
    return tuple(str(value).strip().upper() for value in _values(dataset, name))


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Distance of rows and of columns; None where it is absent, or no two positive numbers."""
    try:
        spacing = tuple(float(value) for value in _values(dataset, "PixelSpacing"))
    except ValueError:
        return None
    if len(spacing) != 2 or not (0 < min(spacing) <= max(spacing) < math.inf):  # noqa: PLR2004 - of rows and of columns
        return None
    return spacing[0], spacing[1]


def _rescale(groups: _Groups, family: Family) -> tuple[float, float, str]:
    """Slope, intercept, and what they give.

    The macro is where they belong (section C.7.6.16.2.9); some writers leave them in what converted objects keep
    aside, or at the top level of the data set.

    Raises:
        Skip: If the slope is 0, or one of the two stands in one place and the other in another.
    """
    places = [*_transformations(groups), groups.whole]
    pairs = [(_number(place, "RescaleSlope"), _number(place, "RescaleIntercept")) for place in places]
    slope, intercept = next((pair for pair in pairs if pair != (None, None)), (None, None))
    parted = (slope is None and any(one is not None for one, _ in pairs)) or (
        intercept is None and any(one is not None for _, one in pairs)
    )
    if slope == 0 or parted:
        raise Skip(Reason.UNSUPPORTED_MULTIFRAME)
    stated = next((text for place in places if (text := _text(place, "RescaleType"))), "")
    kind = groups.macro("CTImageFrameTypeSequence")
    quantity = quantity_of(
        family,
        stated,
        (*_types(kind, "FrameType"), *_types(groups.whole, "ImageType")),
        slope=slope is not None,
        intercept=intercept is not None,
    )
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept, quantity


def _transformations(groups: _Groups) -> Iterator[Dataset]:
    for place, aside in (
        (groups.own, "UnassignedPerFrameConvertedAttributesSequence"),
        (groups.shared, "UnassignedSharedConvertedAttributesSequence"),
    ):
        for name in ("PixelValueTransformationSequence", aside):
            yield from _items(place, name)[:1]


def _window(dataset: Dataset) -> Window | None:
    try:
        center, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    except (Skip, ValueError, TypeError):  # nothing is lost with a window that is not a number
        return None
    if center is None or width is None or width <= 0:
        return None
    stated = _text(dataset, "VOILUTFunction").upper()
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"
    if stated == "SIGMOID":
        function = "SIGMOID"
    elif stated == "LINEAR_EXACT":
        function = "LINEAR_EXACT"
    return Window(center, width, function) if function != "LINEAR" or width > 1 else None


def _seconds(stated: str) -> float | None:
    """Seconds after midnight of a date and time (PS3.5 section 6.2, VR DT); None where it is no such text."""
    clock = stated[8:].split("+", maxsplit=1)[0].split("-", maxsplit=1)[0]
    digits, _, fraction = clock.partition(".")
    if len(digits) != _TIME_DIGITS or not digits.isdigit() or not (fraction or "0").isdigit():
        return None
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    return hours * _SECONDS_PER_HOUR + minutes * _SECONDS_PER_MINUTE + seconds + float(f"0.{fraction or 0}")
