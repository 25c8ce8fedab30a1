import highdicom
import numpy as np
import pydicom
import pytest

from hilum.client.predictions.dicom.report import report_of
from hilum.client.predictions.results import Boxes, Classes, FoundBox, Numbers
from predicting import MAKING, MODEL, dciodvfy_errors, sources_of


@pytest.fixture
def image(tmp_path, dicom):
    pixels = np.random.default_rng(0).integers(0, 999, (50, 60)).astype(np.uint16)
    dicom(tmp_path / "dicom" / "a.dcm", pixels)
    _workspace, [(_item, source)] = sources_of(tmp_path / "dicom", tmp_path / "state")
    return source


@pytest.fixture
def volume(tmp_path, write_series):
    voxels = np.random.default_rng(0).integers(0, 900, (9, 20, 24)).astype(np.int16)
    write_series(tmp_path / "dicom", voxels, FrameOfReferenceUID="1.2.3")
    _workspace, [(_item, source)] = sources_of(tmp_path / "dicom", tmp_path / "state")
    return source


def read(made, path):
    made.save_as(path)
    assert not dciodvfy_errors(path)
    return highdicom.sr.srread(path)


def certainty(group):
    [measured] = group.get_measurements()
    assert (measured.name.meaning, measured.unit.value) == ("Certainty of Finding", "%")
    return measured.value


def test_classes_are_findings_with_their_certainty(image, tmp_path):
    names = ("SCT:39607008+SCT:24028007", "a name of more than 16 characters")
    report = read(report_of(image, Classes(names, (0.25, 0.75)), MAKING), tmp_path / "sr.dcm")
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    groups = report.content.get_image_measurement_groups()
    assert [certainty(group) for group in groups] == [25, 75]
    assert groups[0].finding_type.value == "39607008"
    assert groups[1].finding_type.scheme_designator == "99HILUM"
    assert groups[1].finding_type.meaning == names[1]
    [source] = groups[0].source_images
    assert source.referenced_sop_instance_uid == image.instance_uid
    assert f"model_sha256: {MODEL.sha256}" in pydicom.dcmread(tmp_path / "sr.dcm").to_json()


def test_quantities_come_with_their_unit(image, tmp_path):
    numbers = Numbers(("age", "ratio"), (63.123456789123, 1.5e-7), ("a", "1"))
    report = read(report_of(image, numbers, MAKING), tmp_path / "sr.dcm")
    [group] = report.content.get_image_measurement_groups()
    found = [(one.name.meaning, one.value, one.unit.value) for one in group.get_measurements()]
    assert found == [("age", 63.1234568, "a"), ("ratio", 1.5e-7, "1")]


def test_a_box_is_a_closed_line_on_its_image(image, tmp_path):
    boxes = Boxes((FoundBox("mass", 0.875, 4.5, 6, 20, 11.25), FoundBox("SCT:39607008", 0.5, 0, 0, 60, 50)))
    report = read(report_of(image, boxes, MAKING), tmp_path / "sr.dcm")
    first, second = report.content.get_planar_roi_measurement_groups()
    assert [certainty(group) for group in (first, second)] == [87.5, 50]
    region = first.roi
    assert region.graphic_type.value == "POLYLINE"
    corners = [(4.5, 6), (24.5, 6), (24.5, 17.25), (4.5, 17.25), (4.5, 6)]
    np.testing.assert_allclose(region.value, corners)
    assert first.tracking_uid != second.tracking_uid


def test_a_box_in_a_volume_lies_on_each_of_its_slices(volume, tmp_path):
    boxes = Boxes((FoundBox("mass", 0.5, 4, 6, 10, 8, (2, 4)),))
    report = read(report_of(volume, boxes, MAKING), tmp_path / "sr.dcm")
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    [group] = report.content.get_volumetric_roi_measurement_groups()
    uids = [item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in group.roi]
    assert uids == [volume.frames[place].instance.sop_uid for place in (2, 3, 4)]


def test_what_is_said_of_a_volume_refers_to_each_slice(volume, tmp_path):
    report = read(report_of(volume, Classes(("ill",), (1.0,)), MAKING), tmp_path / "sr.dcm")
    [group] = report.content.get_image_measurement_groups()
    assert len(group.source_images) == 9
    [study] = report.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 9


def test_the_same_report_has_the_same_uid_and_content(image, tmp_path):
    for name, value in (("one", 0.5), ("again", 0.5), ("other", 0.51)):
        report_of(image, Classes(("ill",), (value,)), MAKING).save_as(tmp_path / name)
    one, again, other = (pydicom.dcmread(tmp_path / name) for name in ("one", "again", "other"))
    assert one.to_json() == again.to_json()
    assert other.SOPInstanceUID != one.SOPInstanceUID
    assert other.SeriesInstanceUID == one.SeriesInstanceUID
