from dataclasses import replace

import numpy as np
import pytest

from defects import CORONAL, enhanced, stack
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


def test_a_reason_that_the_order_of_reasons_lacks_is_not_told_as_a_copy(monkeypatch):
    monkeypatch.setattr("hilum.client.intake.planner.plan._MANY_REASONS", ())
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
