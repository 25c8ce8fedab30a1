from dataclasses import replace

import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid

from defects import AXIAL, CORONAL, OBLIQUE, enhanced, stack
from dicom_instances import read_folder
from hilum.client.intake.planner import Tilt, assemble, plan_series, shear_resample
from hilum.client.intake.reasons import Reason, Skip


def plan(made):
    return plan_series([one.instance for one in made])


def only_volume(made):
    (volume,) = plan(made).volumes
    return volume


def test_the_affine_and_spacing_of_an_axial_series_are_as_written():
    volume = only_volume(stack(5))
    assert volume.shape == (5, 6, 5)
    assert volume.spacing_mm == (2.0, 0.7, 0.8)
    np.testing.assert_allclose(
        volume.affine, [[0, 0, 0.8, -10], [0, 0.7, 0, -20], [2, 0, 0, 5], [0, 0, 0, 1]], atol=1e-12
    )


def test_an_empty_series_gives_an_empty_plan():
    empty = plan([])
    assert (empty.volumes, empty.images, empty.cines, empty.refused) == ((), (), (), {})


def test_quality_tells_thickness_from_distance():
    def coverage(thickness_mm):
        return only_volume([one.says(thickness_mm=thickness_mm) for one in stack()]).quality.coverage

    assert [coverage(value) for value in (2.0, 2.01, 1.0, 4.0, None, 0.0)] == [
        "contiguous",
        "contiguous",
        "gapped",
        "overlapping",
        "unknown",
        "unknown",
    ]


def test_quality_marks_the_runs_of_an_interrupted_stack():
    volumes = plan(stack(10, offsets=[0, 1, 2, 3, 5, 6, 7, 8, 9, 11])).volumes
    found = [(v.key, v.quality.run, v.quality.runs, v.quality.slices_left_out) for v in volumes]
    assert found == [("run=1", 1, 2, 1), ("run=2", 2, 2, 1)]


def test_quality_tells_how_far_a_slice_lies_from_the_grid():
    made = stack(spacing=(5.0, 0.7, 0.8))
    made[3] = made[3].says(position_mm=(-10.0, -20.0, 5.0 + 15.0 + 0.04))
    assert only_volume(made).quality.spacing_deviation_mm == pytest.approx(0.04)


def test_a_slice_further_off_the_grid_than_a_hundredth_of_the_distance_is_not_taken():
    made = stack(spacing=(5.0, 0.7, 0.8))
    made[1] = made[1].says(position_mm=(-10.0, -20.0, 10.0 + 0.06))
    assert set(plan(made).refused.values()) == {Reason.IRREGULAR_SPACING}


def test_frames_that_are_left_out_of_an_object_are_counted():
    usable = stack(8, stack="1")
    short = stack(2, uid="b", stack="2", orientation=CORONAL)
    volume = only_volume([enhanced([*usable, *short])])
    assert volume.quality.frames_left_out == 2


def test_dropped_copies_are_counted_and_named_for_a_check_of_their_pixels():
    volume = only_volume([*stack(), stack(uid="z")[3]])
    assert volume.quality.dropped_duplicates == 1
    assert volume.verify_equal == (((3, 0), (8, 0)),)


def test_keys_hold_ordinals_and_not_what_the_files_say():
    made = [*stack(family="mr", coil="ZZPHI"), *stack(family="mr", uid="b", coil="ZZPHI TOO")]
    assert [volume.key for volume in plan(made).volumes] == ["coil=1", "coil=2"]


def test_a_key_does_not_change_when_slices_that_make_no_volume_are_added():
    echoes = [*stack(family="mr", echo_number=1), *stack(family="mr", uid="b", echo_number=2)]
    scout = stack(1, family="mr", uid="s", orientation=CORONAL, echo_number=0)
    keys = [volume.key for volume in plan(echoes).volumes]
    assert [volume.key for volume in plan([*scout, *echoes]).volumes] == keys == ["echo=1", "echo=2"]


def test_a_cine_keeps_the_order_of_its_frames():
    cine = enhanced([one.says(position_mm=None) for one in stack(family="ultrasound")])
    cine = cine.file(frames=cine.instance.frames[::-1], frame_time_ms=33.0)
    (found,) = plan([cine]).cines
    assert found.planes == tuple((0, k) for k in range(8))
    assert found.frame_time_ms == 33.0


def test_planes_of_another_size_than_stated_are_refused():
    volume = only_volume(stack())
    with pytest.raises(Skip, match=Reason.MIXED_GEOMETRY):
        assemble(volume, lambda instance, frame: np.zeros((6, 4 + (instance == 3)), np.float32))
    with pytest.raises(Skip, match=Reason.MIXED_GEOMETRY):
        assemble(volume, lambda instance, frame: np.zeros((6, 4), np.float32))


def test_supposed_copies_that_differ_are_refused():
    volume = only_volume([*stack(), stack(uid="z")[3]])
    with pytest.raises(Skip, match=Reason.MULTIPLE_TIMES):
        assemble(volume, lambda instance, frame: np.full((6, 5), instance == 8, np.float32))


# --- tilt


def tilt(shift_rows, shift_columns):
    sheared = np.eye(4)
    sheared[:3, :3] = [[shift_columns, 0, 1], [shift_rows, 1, 0], [2, 0, 0]]
    return Tilt(10.0, shift_rows, shift_columns, sheared, (0.0, 0.0, 1.0), (4, 6, 5))


@pytest.mark.parametrize("shift", [(2.0, 0.0), (-2.0, 0.0), (0.0, 1.0), (0.0, -3.0), (1.0, -1.0)])
def test_a_shift_by_whole_voxels_moves_values_and_changes_none(shift):
    volume = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    result, _affine = shear_resample(volume, tilt(*shift), background=-7.0)
    rows, columns = (int(abs(value)) for value in shift)
    assert result.shape == (4, 6 + 3 * rows, 5 + 3 * columns)
    for k in range(4):
        row = int(k * shift[0] - min(3 * shift[0], 0))
        column = int(k * shift[1] - min(3 * shift[1], 0))
        np.testing.assert_array_equal(result[k, row : row + 6, column : column + 5], volume[k])
        assert (result[k] == -7.0).sum() == result[k].size - volume[k].size


def test_what_a_tilted_stack_did_not_measure_has_the_least_value_unless_told_otherwise():
    volume = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    result, _affine = shear_resample(volume, tilt(1.5, 0.0))
    assert result[0, -1, 0] == volume.min() == result[3, 0, 0]


def test_a_half_voxel_shift_is_the_mean_of_two_neighbours():
    volume = np.arange(24, dtype=np.float32).reshape(1, 6, 4).repeat(4, axis=0)
    result, _affine = shear_resample(volume, tilt(0.5, 0.0), background=np.nan)
    np.testing.assert_allclose(result[1, 1:6], (volume[1, :-1] + volume[1, 1:]) / 2)
    assert np.isnan(result[1, [0, 6]]).all()


def test_the_gantrys_own_word_is_not_needed_to_see_a_tilt():
    volume = only_volume(stack(tilt_deg=(18.0, 0.0)))
    assert volume.tilt is not None
    assert volume.quality.tilt_deg == pytest.approx(18.0)
    assert volume.shape[1] > 6
    assert volume.shape[2] == 5


# --- from real files, read by another reader than the product's

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


def test_planes_say_which_file_they_are_of():
    made = stack(5)[::-1]
    assert only_volume(made).planes == tuple((k, 0) for k in (4, 3, 2, 1, 0))


def test_a_tolerance_of_two_decimals_holds_for_thin_slices_too():
    made = [
        one.says(position_mm=tuple(round(v, 2) for v in one.instance.frames[0].position_mm))
        for one in stack(40, spacing=(0.333, 0.4, 0.4))
    ]
    assert only_volume(made).quality.planes == 40


def test_ten_thousand_frames_are_planned():
    slices = stack(10)
    frames = [replace(slices[k % 10].instance.frames[0], index=k) for k in range(10_000)]
    frames = [
        replace(frame, contrast=replace(frame.contrast, temporal_position=float(k // 10)))
        for k, frame in enumerate(frames)
    ]
    one = slices[0].instance
    one = replace(one, frames=tuple(frames), pixels=replace(one.pixels, frames=10_000))
    volumes = plan_series([one]).volumes
    assert len(volumes) == 1000
    assert {volume.quality.planes for volume in volumes} == {10}


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
