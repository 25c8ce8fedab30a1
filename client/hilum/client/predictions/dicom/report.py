"""What was found as a report of measurements (PS3.16 TID 1500): classes, quantities, and boxes with their scores.

An image has a Comprehensive SR, a volume a Comprehensive 3D SR (PS3.3 sections A.35.3 and A.35.13). Outlines are in pixels of the
source frames, where (0, 0) is the upper left corner of the first pixel (PS3.3 section C.18.6.1).

Shapes: P points.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom.sr import (
    CodedConcept,
    Comprehensive3DSR,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes

from hilum.client.intake.instance import Family
from hilum.client.intake.silence import silent_readers
from hilum.client.predictions.dicom.concepts import concept_of, private_code, private_scheme
from hilum.client.predictions.dicom.making import MAKER, Making, finish
from hilum.client.predictions.dicom.stand_ins import evidence
from hilum.client.predictions.dicom.uids import derived_uid
from hilum.client.predictions.results import Boxes, Classes, FoundBox, Numbers
from hilum.client.predictions.sources import DicomSource, SourceFrame
from hilum.client.predictions.stored_grid import offset_of

Report = ComprehensiveSR | Comprehensive3DSR
_Group = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)
_PROCEDURES: dict[Family, CodedConcept] = {
    "ct": CodedConcept.from_code(codes.LN.CTUnspecifiedBodyRegion),
    "mr": CodedConcept.from_code(codes.LN.MRIUnspecifiedBodyRegion),
    "pet": CodedConcept.from_code(codes.LN.PETUnspecifiedBodyRegion),
    "radiograph": CodedConcept.from_code(codes.LN.XRUnspecifiedBodyRegion),
}
"""Of CID 100, by what made the image; all others are imaging procedures."""
_DIGITS = 9  # significant ones of a measured value: more than any model is sure of, and they fit in a decimal string
"""Of a percentage, six behind the point do."""


def report_of(source: DicomSource, result: Classes | Numbers | Boxes, making: Making) -> Report:
    """Make a report.

    Args:
        source: Of the item.
        result: What was found on it.
        making: Of this call.
    """
    frames = [(one.instance.sop_uid, one.number) for one in source.frames]
    common = making.common(source, "report", [frames, _facts(result)])
    uid = common["sop_instance_uid"]
    groups = list(_groups(source, result, making, uid))
    family = source.frames[0].instance.family
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(making)),
        procedure_reported=_PROCEDURES.get(family, codes.SCT.ImagingProcedure),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    kind = Comprehensive3DSR if source.item.kind == "volume" else ComprehensiveSR
    with silent_readers():  # highdicom's warnings quote the patient's name
        made: Report = kind(
            evidence=evidence(source),
            content=content,
            coding_schemes=private_scheme(),
            is_complete=True,
            is_final=False,
            is_verified=False,
            **common,
        )
    finish(made, making)
    return made


def _facts(result: Classes | Numbers | Boxes) -> list[object]:
    """Return what a report says, as it is written: what differs less is the same report."""
    if isinstance(result, Boxes):
        return [
            [one.name, _percent(one.score), _corners(one, (0, 0)).tolist(), one.slices]
            for one in result.found
        ]
    if isinstance(result, Numbers):
        return [list(result.names), [_rounded(value) for value in result.values], list(result.units)]
    return [list(result.names), [_percent(value) for value in result.values]]


def _observer(making: Making) -> ObserverContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("model", making.model.sha256),
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=making.model.name[:64],
    )
    return ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)


def _groups(
    source: DicomSource, result: Classes | Numbers | Boxes, making: Making, uid: str
) -> Iterator[_Group]:
    if isinstance(result, Boxes):
        for number, one in enumerate(result.found):
            yield _box(source, one, making, _tracked(uid, number))
    elif isinstance(result, Numbers):
        yield MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracked(uid, 0),
            algorithm_id=making.algorithm_in_report(),
            measurements=[
                Measurement(concept_of(name).code, _rounded(value), _unit(unit))
                for name, value, unit in zip(result.names, result.values, result.units, strict=True)
            ],
            source_images=_whole(source),
        )
    else:
        for number, (name, value) in enumerate(zip(result.names, result.values, strict=True)):
            yield MeasurementsAndQualitativeEvaluations(
                tracking_identifier=_tracked(uid, number),
                finding_type=concept_of(name).code,
                algorithm_id=making.algorithm_in_report(),
                measurements=[_certainty(value)],
                source_images=_whole(source),
            )


def _box(source: DicomSource, one: FoundBox, making: Making, tracked: TrackingIdentifier) -> _Group:
    told: dict[str, Any] = {
        "tracking_identifier": tracked,
        "finding_type": concept_of(one.name).code,
        "algorithm_id": making.algorithm_in_report(),
        "measurements": [_certainty(one.score)],
    }
    if source.item.kind != "volume":
        return PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=_region(source, one, 0), **told
        )
    assert one.slices is not None, "a box in a volume has slices"
    first, last = one.slices
    regions = [_region(source, one, place) for place in range(first, last + 1)]
    return VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_regions=regions, **told)


def _region(source: DicomSource, one: FoundBox, place: int) -> ImageRegion:
    frame = source.frames[place]
    return ImageRegion(
        GraphicTypeValues.POLYLINE,
        _corners(one, offset_of(source, place)),
        SourceImageForRegion(frame.instance.sop_class, frame.instance.sop_uid, _numbers(frame)),
    )


def _corners(one: FoundBox, offset: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return the outline, the last point on the first: (5, 2), column and row."""
    left, top = one.x + offset[1], one.y + offset[0]
    right, bottom = left + one.width, top + one.height
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], np.float32)


def _whole(source: DicomSource) -> list[SourceImageForMeasurementGroup]:
    """Return a reference to each instance, with its frames where it has several and they are known."""
    frames: dict[str, list[SourceFrame]] = {}
    for one in source.frames:
        frames.setdefault(one.instance.sop_uid, []).append(one)
    return [
        SourceImageForMeasurementGroup(
            of_one[0].instance.sop_class,
            uid,
            [one.number for one in of_one if one.number is not None] or None,
        )
        for uid, of_one in frames.items()
    ]


def _numbers(frame: SourceFrame) -> Sequence[int] | None:
    return None if frame.number is None else [frame.number]


def _tracked(uid: str, number: int) -> TrackingIdentifier:
    return TrackingIdentifier(derived_uid("finding", uid, number), f"{MAKER} {number + 1}")


def _certainty(value: float) -> Measurement:
    return Measurement(codes.DCM.CertaintyOfFinding, _percent(value), codes.UCUM.Percent)


def _percent(value: float) -> float:
    return round(100 * value, 6)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _unit(unit: str) -> CodedConcept:
    if unit == "1":
        return CodedConcept.from_code(codes.UCUM.NoUnits)
    return CodedConcept(unit, "UCUM", unit) if len(unit) <= 16 else private_code(unit)  # noqa: PLR2004 - characters of SH
