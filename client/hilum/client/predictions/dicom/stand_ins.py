"""What the writers are given in place of source images: whose they are and where they lie, without a pixel.

highdicom takes data sets of source images, copies patient and study from the first, and finds the frames that it refers to by
position. A mosaic, one object of several volumes or a clip don't fit its picture of a series. So each stored slice stands in as an
image of its own, under a name that `settle_references` replaces by the instance and frame that it stands for.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np
from pydicom import Dataset
from pydicom.valuerep import DA, TM, format_number_as_ds

from hilum.client.intake.silence import silent_readers
from hilum.client.predictions.dicom.uids import derived_uid
from hilum.client.predictions.sources import DicomSource, SourceFrame

UNICODE = "ISO_IR 192"
_CT, _SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
_NEEDED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Attributes of type 2 of patient and study: there, and empty where the source has none."""
_SEXES = frozenset({"M", "F", "O"})


def person_and_study(source: DicomSource) -> Dataset:
    """Return what an object takes over of its source, in Unicode; a malformed date, time, age or sex is left empty."""
    with silent_readers():
        found = Dataset.from_json(dict(source.attributes))
        for keyword in _NEEDED:
            if keyword not in found:
                setattr(found, keyword, "")
        for element in found:
            if element.value and not _is_well_formed(element.VR, str(element.value)):
                element.value = ""
        if found.PatientSex not in _SEXES:
            found.PatientSex = ""
    first = source.frames[0].instance
    found.StudyInstanceUID, found.SeriesInstanceUID = first.study_uid, first.series_uid
    found.SpecificCharacterSet = UNICODE
    return found


def _is_well_formed(representation: str, value: str) -> bool:
    """Tell whether a date, time or age is one (PS3.5 section 6.2); other values are not judged."""
    if representation == "AS":
        return re.fullmatch(r"\d{3}[DWMY]", value) is not None
    kind = {"DA": DA, "TM": TM}.get(representation)
    try:
        return kind is None or kind(value) is not None
    except ValueError:
        return False


def evidence(source: DicomSource) -> list[Dataset]:
    """Return each source instance once, the first with patient and study, as a report refers to it."""
    instances = {one.instance.sop_uid: one.instance for one in source.frames}.values()
    listed: list[Dataset] = []
    for instance in instances:
        one = Dataset() if listed else person_and_study(source)
        one.SOPClassUID, one.SOPInstanceUID = instance.sop_class, instance.sop_uid
        one.StudyInstanceUID, one.SeriesInstanceUID = instance.study_uid, instance.series_uid
        listed.append(one)
    return listed


def stand_ins(source: DicomSource) -> list[Dataset]:
    """Return an image for each stored slice, or for the one frame of an image."""
    volume = source.item.kind == "volume"
    frame_of_reference = source.frames[0].instance.frame_of_reference or derived_uid(
        "frame of reference", source.series_uid
    )
    made: list[Dataset] = []
    for place, one in enumerate(source.frames):
        image = Dataset() if made else person_and_study(source)
        image.SOPClassUID, image.SOPInstanceUID = (_CT if volume else _SECONDARY_CAPTURE), _name(place)
        image.StudyInstanceUID, image.SeriesInstanceUID = source.study_uid, source.series_uid
        image.Modality = "CT" if volume else "OT"
        if volume:
            image.FrameOfReferenceUID = frame_of_reference
            _lay(image, one, source)
        else:
            image.Rows, image.Columns = one.instance.pixels.rows, one.instance.pixels.columns
        made.append(image)
    return made


def _name(place: int) -> str:
    return f"2.25.{place}"


def _lay(image: Dataset, one: SourceFrame, source: DicomSource) -> None:
    """Give a slice its size and its place in the patient."""
    frame, affine = one.frame, source.stored_affine
    orientation = source.frames[0].frame.orientation
    assert orientation is not None, "slices of a volume are placed"
    assert frame.position_mm is not None, "likewise"
    image.Rows, image.Columns = _stored_shape(source)
    image.ImageOrientationPatient = [format_number_as_ds(v) for v in orientation]
    image.ImagePositionPatient = [format_number_as_ds(v) for v in frame.position_mm]
    rows_mm, columns_mm = (float(np.linalg.norm(affine[:3, axis])) for axis in (1, 2))
    image.PixelSpacing = [format_number_as_ds(v) for v in frame.spacing_mm or (rows_mm, columns_mm)]
    normal = np.cross(orientation[:3], orientation[3:])
    between_mm = abs(float(normal @ affine[:3, 0]))
    image.SpacingBetweenSlices = format_number_as_ds(between_mm)
    image.SliceThickness = format_number_as_ds(frame.thickness_mm or between_mm)


def _stored_shape(source: DicomSource) -> tuple[int, int]:
    _depth, height, width = source.tilt.shape if source.tilt is not None else source.item.shape
    return height, width


def settle_references(made: Dataset, source: DicomSource) -> None:
    """Name the true instances and frames wherever an object refers to stand-ins."""
    true = {_name(place): one for place, one in enumerate(source.frames)}
    for holder in (made, *made.ReferencedSeriesSequence):
        keyword = "SourceImageSequence" if holder is made else "ReferencedInstanceSequence"
        setattr(holder, keyword, _instances(getattr(holder, keyword), true))
    for groups in made.PerFrameFunctionalGroupsSequence:
        for derivation in groups.DerivationImageSequence:
            for reference in derivation.SourceImageSequence:
                one = true.get(reference.ReferencedSOPInstanceUID)
                if one is None:  # segments of one slice share the item
                    continue
                reference.ReferencedSOPClassUID = one.instance.sop_class
                reference.ReferencedSOPInstanceUID = one.instance.sop_uid
                if one.number is not None:
                    reference.ReferencedFrameNumber = one.number
                if one.instance.mosaic:
                    reference.SpatialLocationsPreserved = "NO"


def _instances(references: Iterable[Dataset], true: Mapping[str, SourceFrame]) -> list[Dataset]:
    """Return one reference an instance."""
    named = {true[one.ReferencedSOPInstanceUID].instance.sop_uid: one for one in references}
    listed = []
    for one in references:
        instance = true[one.ReferencedSOPInstanceUID].instance
        if named.pop(instance.sop_uid, None) is not None:
            reference = Dataset()
            reference.ReferencedSOPClassUID = instance.sop_class
            reference.ReferencedSOPInstanceUID = instance.sop_uid
            listed.append(reference)
    return listed
