import warnings

import highdicom
import numpy as np
import pydicom
import pytest

from annotated_site import CT, OBLIQUE, make_site
from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.annotations.marks import on_grid
from hilum.client.intake.formats.naming import LabelMap as Names
from hilum.client.predictions.dicom.segmentation import segmentation_of
from hilum.client.predictions.results import LabelMap
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.common.progress import NullProgress
from predicting import MAKING, MODEL, NAMES, dciodvfy_errors, marked, sources_of, space_of

SHEARS = {
    "straight": (0.0, 0.0),
    "a gantry tilt by parts of a row": (0.31, 0.0),
    "a tilt the other way": (-0.53, 0.0),
    "a shift along the rows": (0.0, 0.33),
    "a shift by whole columns": (0.0, 0.7),
}


def read_back(workspace, folder, item):
    """What `hilum site annotate` makes of a folder, on the item's grid, by label."""
    report = annotate(folder, workspace, Names({"99hilum:mass": "mass"}), NullProgress())
    catalogue, cache = Catalogue(workspace.catalogue), ArrayCache(workspace.masks)
    masks = [one for one in catalogue.annotations(kind="mask") if one.item_key == item.item_key]
    return report, {one.label: on_grid(one, cache.get(one.content_sha256), space_of(item)) for one in masks}


def write(folder, source, labels, **options):
    folder.mkdir(exist_ok=True)
    made = segmentation_of(
        source, LabelMap(NAMES, labels, options.pop("probabilities", None)), MAKING, **options
    )
    path = folder / f"{made.SOPInstanceUID}.dcm"
    made.save_as(path)
    return path


def inside(source, labels):
    """What of a label map lies on voxels that were measured: a tilted stack is brought upright with room at its sides."""
    if source.tilt is None:
        return labels
    from hilum.client.intake.planner import shear_mask

    return np.where(shear_mask(np.ones(source.tilt.shape, bool), source.tilt), labels, 0)


@pytest.mark.parametrize("shear", SHEARS)
@pytest.mark.parametrize("rotation", [np.eye(3), OBLIQUE], ids=["axial", "oblique"])
def test_a_volume_comes_back_to_the_voxel(tmp_path, dicom, rotation, shear):
    site = make_site(tmp_path, dicom, rotation, SHEARS[shear])
    workspace, found = sources_of(tmp_path / "dicom", tmp_path / "new")
    [(item, source)] = [one for one in found if one[0].kind == "volume"]
    labels = inside(source, marked(item.shape))
    path = write(tmp_path / "seg", source, labels)
    report, masks = read_back(workspace, tmp_path / "seg", item)
    assert (report.masks, report.skipped) == (2, {})
    for number, name in enumerate(NAMES, 1):
        np.testing.assert_array_equal(masks[name], labels == number)
    assert not dciodvfy_errors(path)
    stored = {ds.SOPInstanceUID: ds for ds in site.datasets}
    for groups in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        [reference] = groups.DerivationImageSequence[0].SourceImageSequence
        slice_ = stored[reference.ReferencedSOPInstanceUID]
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, slice_.ImagePositionPatient, atol=1e-5)
        assert (reference.ReferencedSOPClassUID, reference.SpatialLocationsPreserved) == (CT, "YES")


def test_slices_that_descend_come_back_to_the_voxel(tmp_path, write_series):
    volume = np.random.default_rng(0).integers(0, 900, (9, 20, 24)).astype(np.int16)
    write_series(tmp_path / "dicom", volume, spacing_mm=(-3.0, 0.7, 0.8), FrameOfReferenceUID="1.2.3")
    workspace, [(item, source)] = sources_of(tmp_path / "dicom", tmp_path / "state")
    labels = marked(item.shape)
    write(tmp_path / "seg", source, labels)
    _report, masks = read_back(workspace, tmp_path / "seg", item)
    for number, name in enumerate(NAMES, 1):
        np.testing.assert_array_equal(masks[name], labels == number)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_an_image_without_a_place_comes_back_to_the_pixel(tmp_path, dicom, photometric):
    pixels = np.random.default_rng(0).integers(0, 999, (50, 60)).astype(np.uint16)
    dicom(tmp_path / "dicom" / "a.dcm", pixels, PhotometricInterpretation=photometric)
    workspace, [(item, source)] = sources_of(tmp_path / "dicom", tmp_path / "state")
    labels = marked((50, 60))
    path = write(tmp_path / "seg", source, labels)
    assert not dciodvfy_errors(path)
    _report, masks = read_back(workspace, tmp_path / "seg", item)
    for number, name in enumerate(NAMES, 1):
        np.testing.assert_array_equal(masks[name], labels == number)


def test_what_was_found_on_a_part_of_a_picture_lies_there_in_the_whole(tmp_path, dicom):
    region = pydicom.Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 12, 8
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 51, 37
    region.RegionSpatialFormat, region.RegionDataType = 1, 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.02
    pixels = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)
    dicom(
        tmp_path / "dicom" / "us.dcm",
        pixels,
        sop_class="1.2.840.10008.5.1.4.1.1.6.1",
        Modality="US",
        SequenceOfUltrasoundRegions=[region],
    )
    _workspace, [(item, source)] = sources_of(tmp_path / "dicom", tmp_path / "state")
    assert item.shape == (30, 40)
    labels = marked((30, 40))
    seg = highdicom.seg.segread(write(tmp_path / "seg", source, labels))
    whole = np.zeros((60, 80), np.uint8)
    whole[8:38, 12:52] = labels
    for number in (1, 2):
        frames = [
            seg.get_stored_frame(frame + 1)
            for frame, groups in enumerate(seg.PerFrameFunctionalGroupsSequence)
            if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
        ]
        np.testing.assert_array_equal(frames[0] > 0, whole == number)


def test_probabilities_are_kept_in_255_steps(tmp_path, dicom):
    pixels = np.random.default_rng(0).integers(0, 999, (20, 30)).astype(np.uint16)
    dicom(tmp_path / "dicom" / "a.dcm", pixels)
    workspace, [(item, source)] = sources_of(tmp_path / "dicom", tmp_path / "state")
    probabilities = (
        np.random.default_rng(1).dirichlet((1, 1, 1), (20, 30)).T[:2].swapaxes(1, 2).astype(np.float32)
    )
    path = write(tmp_path / "seg", source, marked((20, 30)), probabilities=probabilities, fractional=True)
    assert not dciodvfy_errors(path)
    seg = highdicom.seg.segread(path)
    assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    found = np.stack([seg.get_stored_frame(number) for number in (1, 2)]) / seg.MaximumFractionalValue
    np.testing.assert_allclose(found, probabilities, atol=0.5 / 255 + 1e-6)
    _report, masks = read_back(workspace, tmp_path / "seg", item)
    np.testing.assert_array_equal(masks["mass"], np.rint(probabilities[1] * 255) >= 127.5)


def test_it_says_who_made_it_of_whom_and_with_what(tmp_path, dicom):
    told = {
        "PatientName": "Yamada^Tarou=山田^太郎",
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientSex": "X",  # not one of DICOM's
        "PatientAge": "77",
        "StudyDate": "20200229",
        "StudyTime": "250000",
        "StudyDescription": "Thorax",
        "AccessionNumber": "A17",
        "InstanceNumber": 4,
    }
    pixels = np.random.default_rng(0).integers(0, 999, (20, 30)).astype(np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of the malformed age
        image = dicom(tmp_path / "dicom" / "a.dcm", pixels, **told)
    _workspace, [(_item, source)] = sources_of(tmp_path / "dicom", tmp_path / "state")
    path = write(tmp_path / "seg", source, marked((20, 30)))
    assert not dciodvfy_errors(path)
    made = pydicom.dcmread(path)
    assert str(made.PatientName) == "Yamada^Tarou=山田^太郎"
    for keyword in ("PatientID", "StudyInstanceUID", "StudyDate", "StudyDescription", "AccessionNumber"):
        assert made[keyword].value == image[keyword].value
    assert (made.PatientSex, made.StudyTime, made.InstanceNumber) == ("", "", 4)
    assert made.SeriesInstanceUID != image.SeriesInstanceUID
    assert (made.ContentLabel, made.ContentDate, made.ContentTime) == ("PREDICTION", "20260304", "050607")
    segment, other = made.SegmentSequence
    [code] = segment.SegmentedPropertyTypeCodeSequence
    assert (code.CodeValue, code.CodeMeaning) == ("39607008", "Lung")
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "24028007"
    [private] = other.SegmentedPropertyTypeCodeSequence
    assert (private.CodingSchemeDesignator, private.CodeValue, other.SegmentLabel) == (
        "99HILUM",
        "mass",
        "mass",
    )
    [algorithm] = other.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "Hilum"
    assert MODEL.sha256 in algorithm.AlgorithmParameters


def test_the_same_prediction_has_the_same_uids_and_another_one_others(tmp_path, dicom):
    pixels = np.random.default_rng(0).integers(0, 999, (20, 30)).astype(np.uint16)
    dicom(tmp_path / "dicom" / "a.dcm", pixels)
    _workspace, [(_item, source)] = sources_of(tmp_path / "dicom", tmp_path / "state")
    labels = marked((20, 30))
    one, again = (pydicom.dcmread(write(tmp_path / f"seg{n}", source, labels)).to_json() for n in range(2))
    assert one == again
    labels[0, 0] = 2
    other = pydicom.dcmread(write(tmp_path / "seg", source, labels))
    assert other.SOPInstanceUID not in one
    assert other.SeriesInstanceUID in one


def test_nothing_found_is_a_segmentation_without_a_voxel(tmp_path, dicom):
    pixels = np.random.default_rng(0).integers(0, 999, (20, 30)).astype(np.uint16)
    dicom(tmp_path / "dicom" / "a.dcm", pixels)
    workspace, [(item, source)] = sources_of(tmp_path / "dicom", tmp_path / "state")
    path = write(tmp_path / "seg", source, np.zeros((20, 30), np.uint8))
    assert not dciodvfy_errors(path)
    report, masks = read_back(workspace, tmp_path / "seg", item)
    assert (report.skipped, masks) == ({"empty_annotation": 2}, {})
