"""Series of real files, read by another reader than the product's, and planned."""

import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid

from defects import AXIAL, CORONAL, OBLIQUE
from dicom_instances import read_folder
from hilum.client.intake.planner import assemble, plan_series
from hilum.client.intake.reasons import Reason, Skip

SHAPE = (6, 10, 8)


@pytest.fixture
def write(dicom):
    def write(
        folder,
        *,
        sop_class=CTImageStorage,
        spacing=(2.5, 0.7, 0.8),
        orientation=AXIAL,
        shear=(0, 0),
        image=0,
        change=None,
        **rest,
    ):
        """A series whose stored values name their voxel: image * 10,000 + d * 100 + h * 10 + w."""
        row, column = np.array(orientation[:3]), np.array(orientation[3:])
        step = spacing[0] * np.cross(row, column) + column * shear[0] + row * shear[1]
        d, h, w = np.indices(SHAPE)
        values = (image * 10_000 + d * 100 + h * 10 + w).astype(np.int16)
        for k in range(SHAPE[0]):
            place = np.array([-31.5, 12.25, -700.0]) + k * step
            attributes = {
                "SeriesInstanceUID": "1.2.3",
                "StudyInstanceUID": "1.2",
                "ImagePositionPatient": [float(f"{v:.8g}") for v in place],
                "ImageOrientationPatient": list(orientation),
                "PixelSpacing": list(spacing[1:]),
                "InstanceNumber": (k * 5) % 7,
                **rest,
                **(change(k) if change else {}),
            }
            if not attributes.pop("leave_out", False):
                dicom(folder / f"{generate_uid()}.dcm", values[k], sop_class=sop_class, **attributes)
        affine = np.eye(4)
        affine[:3, :] = np.stack(
            [step, column * spacing[1], row * spacing[2], [-31.5, 12.25, -700.0]], axis=1
        )
        return values, affine

    return write


def read(folder):
    (series,) = read_folder(folder).values()
    return series, plan_series(series.instances)


@pytest.mark.parametrize(
    ("orientation", "spacing"),
    [(AXIAL, (2.5, 0.7, 0.8)), (CORONAL, (1.0, 1.0, 1.0)), (OBLIQUE, (0.625, 0.35, 0.35))],
)
def test_files_in_any_order_give_the_voxels_that_were_written_where_they_were_written(
    tmp_path, write, orientation, spacing
):
    values, affine = write(tmp_path, orientation=[round(v, 9) for v in orientation], spacing=spacing)
    series, found = read(tmp_path)
    volume, at = assemble(found.volumes[0], series.plane)
    np.testing.assert_array_equal(volume, values)
    np.testing.assert_allclose(at, affine, atol=1e-5)


def test_decimal_strings_longer_than_sixteen_characters_keep_their_digits(tmp_path, write):
    position = "-700.12345678901234567"
    with pytest.warns(UserWarning, match="length"):
        write(
            tmp_path,
            change=lambda k: {
                "ImagePositionPatient": ["-31.5", "12.25", f"{float(position) + 2.5 * k:.17f}"]
            },
        )
    _series, found = read(tmp_path)
    assert found.volumes[0].affine[2, 3] == pytest.approx(float(position), abs=1e-9)
    assert found.volumes[0].quality.planes == SHAPE[0]


def test_a_missing_file_in_the_middle_of_a_short_series_is_refused(tmp_path, write):
    write(tmp_path, change=lambda k: {"leave_out": k == 3})
    _series, found = read(tmp_path)
    assert found.volumes == ()
    assert set(found.refused.values()) == {Reason.IRREGULAR_SPACING}


def test_two_echoes_of_one_series_become_two_volumes(tmp_path, write):
    one, affine = write(tmp_path, sop_class=MRImageStorage, EchoNumbers=1, EchoTime="4.92")
    two, _affine = write(tmp_path, sop_class=MRImageStorage, image=1, EchoNumbers=2, EchoTime="9.84")
    series, found = read(tmp_path)
    assert [volume.key for volume in found.volumes] == ["echo=1", "echo=2"]
    for planned, values in zip(found.volumes, (one, two), strict=True):
        volume, at = assemble(planned, series.plane)
        np.testing.assert_array_equal(volume, values)
        np.testing.assert_allclose(at, affine, atol=1e-6)


def test_rescale_may_change_from_slice_to_slice(tmp_path, write):
    values, _affine = write(tmp_path, change=lambda k: {"RescaleSlope": 1 + k, "RescaleIntercept": -k})
    series, found = read(tmp_path)
    volume, _at = assemble(found.volumes[0], series.plane)
    k = np.arange(SHAPE[0])[:, None, None]
    np.testing.assert_array_equal(volume, values * (1.0 + k) - k)


def test_unmarked_time_points_are_refused_once_decoded(tmp_path, write):
    write(tmp_path, InstanceNumber=1)
    write(tmp_path, image=1, InstanceNumber=1)
    series, found = read(tmp_path)
    with pytest.raises(Skip, match=Reason.MULTIPLE_TIMES):
        assemble(found.volumes[0], series.plane)


def test_a_tilted_series_from_files_lies_upright_where_it_was_measured(tmp_path, write):
    values, sheared = write(tmp_path, shear=(0.7, 0.0))  # one row a slice
    series, found = read(tmp_path)
    planned = found.volumes[0]
    volume, affine = assemble(planned, series.plane, background=-1.0)
    assert planned.quality.tilt_deg == pytest.approx(np.degrees(np.arctan2(0.7, 2.5)), abs=1e-3)
    for index in np.ndindex(SHAPE):
        place = np.linalg.solve(affine, sheared @ [*index, 1])[:3]
        np.testing.assert_allclose(place, np.rint(place), atol=1e-5)
        assert volume[tuple(np.rint(place).astype(int))] == pytest.approx(values[index], abs=1e-3)


def test_a_localizer_among_the_files_is_set_aside(tmp_path, write, dicom):
    write(tmp_path)
    pixels = np.ones((10, 8), np.int16)
    dicom(
        tmp_path / "scout.dcm",
        pixels,
        sop_class=CTImageStorage,
        SeriesInstanceUID="1.2.3",
        StudyInstanceUID="1.2",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=list(CORONAL),
        ImagePositionPatient=[0, 0, 0],
        PixelSpacing=[1, 1],
    )
    series, found = read(tmp_path)
    assert [volume.quality.planes for volume in found.volumes] == [SHAPE[0]]
    scout = next(k for k, path in enumerate(series.paths) if path.name == "scout.dcm")
    assert found.refused == {scout: Reason.LOCALIZER}


def test_an_object_that_highdicom_made_of_files_gives_the_voxels_of_the_files(tmp_path, write):
    attributes = {
        "FrameOfReferenceUID": "1.9",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SliceThickness": 2.5,
        "RescaleSlope": 2,
        "RescaleIntercept": -1000,
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyDate": "",
        "StudyTime": "",
        "StudyID": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "PositionReferenceIndicator": "",
        "Manufacturer": "ACME",
        "SeriesNumber": 1,
        "AcquisitionNumber": 1,
        "AcquisitionDate": "20200101",
        "AcquisitionTime": "101010",
        "BurnedInAnnotation": "NO",
        "KVP": 120,
    }
    values, affine = write(tmp_path / "slices", orientation=CORONAL, **attributes)
    slices = [pydicom.dcmread(path) for path in (tmp_path / "slices").iterdir()]
    made = LegacyConvertedEnhancedCTImage(slices, "1.2.77", 2, "1.2.77.1", 1)
    (tmp_path / "object").mkdir()
    made.save_as(tmp_path / "object" / "one.dcm")
    series, found = read(tmp_path / "object")
    (planned,) = found.volumes
    assert sorted(frame for _instance, frame in planned.planes) == list(range(SHAPE[0]))
    volume, at = assemble(planned, series.plane)
    np.testing.assert_array_equal(volume, values * 2.0 - 1000)
    np.testing.assert_allclose(at, affine, atol=1e-6)
