"""Volumes of plain files, read straight and plane by plane, against the values by hand in float32."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from hilum.client.intake.assembly.direct_read import DirectReader
from hilum.client.intake.assembly.volume import build_volume
from hilum.client.intake.headers.read_instance import read_instance
from hilum.client.intake.instance import Frame
from hilum.client.intake.pixels.images import Plane, read_planes
from hilum.client.intake.pixels.integer_rescale import in_units
from hilum.client.intake.pixels.rescale import rescaled
from hilum.client.intake.planner import plan_series
from hilum.client.intake.reasons import Reason, Skip
from pixel_files import EXPLICIT, write_floats, write_native

MR = "1.2.840.10008.5.1.4.1.1.4"


def pixels_of(low, high, dtype, seed=0):
    return np.random.default_rng(seed).integers(low, high, (5, 6, 7), endpoint=True).astype(dtype)


def planned(folder):
    """The one volume of a folder, and its files."""
    paths = sorted(folder.iterdir())
    files = [(path, read_instance(path)) for path in paths]
    (volume,) = plan_series([instance for _path, instance in files]).volumes
    return volume, files


def both_ways(folder):
    """Read straight (None where that is not sure), and of planes."""
    volume, files = planned(folder)
    straight = DirectReader().read(volume, files.__getitem__)
    planes = {(index, frame): next(read_planes(*files[index], (frame,))) for index, frame in volume.planes}
    return straight, build_volume(volume, planes)


def in_float32(datasets, padding=None):
    """What the attributes say, in plain float32, stacked by position."""
    datasets = sorted(datasets, key=lambda one: one.ImagePositionPatient[2])
    stored = np.stack([one.pixel_array for one in datasets])
    slopes, intercepts = (
        np.array([getattr(one, name, default) for one in datasets], np.float32)[:, None, None]
        for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    values = stored.astype(np.float32) * slopes + intercepts
    if padding is not None:
        values[stored == padding] = values[stored != padding].min()
    return values


@pytest.mark.parametrize(
    ("low", "high", "dtype", "rescale"),
    [
        (-1024, 3071, np.int16, (1, 0)),
        (0, 4095, np.uint16, (1, -1024)),
        (32_768, 65_535, np.uint16, (1, -32_768)),
        (40_000, 65_535, np.uint16, (1, -50_000)),
        (-32_768, 32_767, np.int16, (1, 0)),
        (0, 100, np.uint16, (3, -7)),
    ],
)
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_whole_values_are_read_straight(tmp_path, write_series, low, high, dtype, rescale, syntax):
    slope, intercept = rescale
    more = {} if syntax is None else {"syntax": syntax}
    written = write_series(
        tmp_path, pixels_of(low, high, dtype), RescaleSlope=slope, RescaleIntercept=intercept, **more
    )
    straight, assembled = both_ways(tmp_path)
    assert straight is not None
    assert straight.dtype == assembled.dtype == np.int16
    np.testing.assert_array_equal(straight, assembled)
    np.testing.assert_array_equal(straight, in_float32(written))


@pytest.mark.parametrize(
    ("low", "high", "dtype", "rescale"),
    [
        (0, 65_535, np.uint16, (1, 0)),
        (-32_768, 32_767, np.int16, (1, -1024)),
        (0, 4095, np.uint16, (0.5, -1024)),
        (0, 4095, np.uint16, (1, -0.25)),
        (0, 4095, np.uint16, (1000, -4_000_000)),
        (0, 60_000, np.uint16, (100_000_001, 0)),
        (0, 100, np.uint16, (-1, 0)),
        (0, 200, np.uint8, (1, 0)),
    ],
)
def test_values_that_may_be_no_int16_take_the_way_of_planes(
    tmp_path, write_series, low, high, dtype, rescale
):
    slope, intercept = rescale
    written = write_series(
        tmp_path, pixels_of(low, high, dtype), RescaleSlope=slope, RescaleIntercept=intercept
    )
    straight, assembled = both_ways(tmp_path)
    assert straight is None
    np.testing.assert_array_equal(assembled, in_float32(written))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_wide_pixels_make_a_volume_plane_by_plane(tmp_path, dtype):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(6, 9, 7)) * 1e5).astype(dtype)
    expected = (values.astype(np.float64) * 0.5 + 3).astype(np.float32)
    if values.dtype.kind == "f":
        values[2, 0, 0], values[3, 1, 1] = np.nan, np.inf
        expected[2, 0, 0] = expected[3, 1, 1] = np.inf
        expected[np.isinf(expected)] = expected.min()
    for k in rng.permutation(6):
        attributes = {
            "SOPClassUID": MR, "SOPInstanceUID": f"1.2.{k + 1}", "ImagePositionPatient": [0, 0, 2 * int(k)],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "RescaleSlope": 0.5,
            "RescaleIntercept": 3,
        }  # fmt: skip
        write = write_floats if values.dtype.kind == "f" else write_native
        write(tmp_path / f"{rng.integers(1 << 30)}", values[k][None], EXPLICIT, **attributes)
    straight, assembled = both_ways(tmp_path)
    assert straight is None
    np.testing.assert_array_equal(assembled, expected)
    assert assembled.dtype == np.float32


def test_every_slice_has_its_own_rescale(tmp_path, write_series, dicom):
    stored = pixels_of(0, 500, np.uint16)
    written = write_series(tmp_path, stored)
    for number, (path, dataset) in enumerate(
        zip(files_in_order(tmp_path), by_position(written), strict=True)
    ):
        dataset.RescaleSlope, dataset.RescaleIntercept = number + 1, -10 * number
        dataset.save_as(path)
    straight, assembled = both_ways(tmp_path)
    assert straight is not None
    np.testing.assert_array_equal(straight, assembled)
    expected = stored.astype(int) * np.arange(1, 6)[:, None, None] - 10 * np.arange(5)[:, None, None]
    np.testing.assert_array_equal(straight, expected)


def test_one_slice_of_fractions_makes_the_volume_float32(tmp_path, write_series):
    whole = {"RescaleSlope": 1, "RescaleIntercept": 0}  # without them the slices are of another quantity
    written = write_series(tmp_path, pixels_of(0, 500, np.uint16), PixelPaddingValue=3, **whole)
    path, dataset = files_in_order(tmp_path)[2], by_position(written)[2]
    dataset.RescaleSlope, dataset.RescaleIntercept = "0.5", "-20.25"
    dataset.save_as(path)
    straight, assembled = both_ways(tmp_path)
    assert straight is None
    assert assembled.dtype == np.float32
    np.testing.assert_array_equal(assembled, in_float32(written, padding=3))


@pytest.mark.parametrize("padding", [7, 63_536, -2000])
def test_padding_takes_the_lowest_value_of_what_has_data(tmp_path, write_series, padding):
    stored = pixels_of(10, 2000, np.int16)
    wrapped = padding - 65_536 if padding > 32_767 else padding
    stored[:, :, :2] = wrapped
    stored[3] = wrapped  # a slice of nothing else
    written = write_series(
        tmp_path, stored, RescaleIntercept=-1024, RescaleSlope=1, PixelPaddingValue=wrapped
    )
    straight, assembled = both_ways(tmp_path)
    assert straight is not None
    np.testing.assert_array_equal(straight, assembled)
    np.testing.assert_array_equal(straight, in_float32(written, padding=wrapped))
    assert straight.min() == stored[stored != wrapped].min() - 1024


def test_bits_outside_of_those_stored_are_no_part_of_a_value(tmp_path, write_series):
    stored = pixels_of(0, 4095, np.uint16)
    write_series(tmp_path / "clean", stored, BitsStored=12, HighBit=11)
    write_series(tmp_path / "overlaid", stored | 0x1000, BitsStored=12, HighBit=11)
    clean, _ = both_ways(tmp_path / "clean")
    straight, assembled = both_ways(tmp_path / "overlaid")
    np.testing.assert_array_equal(clean, stored)
    assert straight is None
    np.testing.assert_array_equal(assembled, stored)


def test_a_negative_number_in_twelve_of_sixteen_bits_keeps_its_sign(tmp_path, write_series):
    stored = pixels_of(-2048, 2047, np.int16)
    bits = {"BitsStored": 12, "HighBit": 11}
    write_series(tmp_path / "extended", stored, **bits)
    write_series(tmp_path / "cut", (stored & 0x0FFF).astype(np.int16), **bits)
    for name, is_straight in (("extended", True), ("cut", False)):
        straight, assembled = both_ways(tmp_path / name)
        assert (straight is not None) == is_straight
        np.testing.assert_array_equal(assembled if straight is None else straight, stored)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, RLELossless])
def test_other_syntaxes_take_the_way_of_planes(tmp_path, write_series, syntax):
    stored = pixels_of(0, 100, np.uint16)
    write_series(tmp_path, stored.byteswap() if syntax == ExplicitVRBigEndian else stored, syntax=syntax)
    straight, assembled = both_ways(tmp_path)
    assert straight is None
    np.testing.assert_array_equal(assembled, stored)


def test_a_file_that_changed_after_its_header_was_read_is_not_read_straight(tmp_path, write_series):
    written = write_series(tmp_path, pixels_of(0, 100, np.uint16))
    volume, files = planned(tmp_path)
    dataset, path = by_position(written)[1], files_in_order(tmp_path)[1]
    dataset.ImageComments = "longer"
    dataset.save_as(path)
    assert DirectReader().read(volume, files.__getitem__) is None
    path.unlink()
    assert DirectReader().read(volume, files.__getitem__) is None


@pytest.mark.parametrize("lost_bytes", [1, 40, 200])
def test_a_cut_file_is_not_read_straight(tmp_path, write_series, lost_bytes):
    write_series(tmp_path, pixels_of(0, 100, np.uint16))
    volume, files = planned(tmp_path)
    path = files_in_order(tmp_path)[4]
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    assert DirectReader().read(volume, files.__getitem__) is None


def test_a_volume_of_one_value_is_left_to_be_refused(tmp_path, write_series):
    write_series(tmp_path, np.full((5, 6, 7), 9, np.uint16))
    volume, files = planned(tmp_path)
    assert DirectReader().read(volume, files.__getitem__) is None
    planes = {(index, 0): next(read_planes(*files[index], (0,))) for index, _frame in volume.planes}
    with pytest.raises(Skip) as refused:
        build_volume(volume, planes)
    assert refused.value.reason == Reason.CONSTANT_PIXELS


def test_a_header_without_the_place_of_the_pixels_is_read_the_long_way(tmp_path, write_series):
    write_series(tmp_path, pixels_of(0, 100, np.uint16))
    volume, files = planned(tmp_path)
    without = [(path, replace(instance, pixel_offset=None)) for path, instance in files]
    assert DirectReader().read(volume, without.__getitem__) is None


def test_planes_of_whole_and_of_broken_numbers_stack_without_a_change(tmp_path, write_series):
    write_series(tmp_path, pixels_of(0, 100, np.uint16))
    volume, _files = planned(tmp_path)
    values = [np.full((6, 7), k, np.int16) for k in range(4)] + [np.full((6, 7), 0.5, np.float32)]
    empty = np.zeros((6, 7), bool)
    empty[0] = True
    planes = {
        plane: Plane(one, empty if k == 2 else None)
        for k, (plane, one) in enumerate(zip(volume.planes, values, strict=True))
    }
    built = build_volume(volume, planes)
    assert built.dtype == np.float32
    assert built[:, 1, 0].tolist() == [0, 1, 2, 3, 0.5]
    assert built[2, 0].tolist() == [0] * 7


WHOLE = st.integers(-70_000, 70_000) | st.sampled_from([0, 1, -1, 1 << 24, (1 << 24) + 1, 1 << 40])


@settings(deadline=None, max_examples=400)
@given(
    dtype=st.sampled_from([np.int8, np.uint8, np.int16, np.uint16, np.int32]),
    ends=st.tuples(st.integers(-70_000, 70_000), st.integers(-70_000, 70_000)),
    slope=(WHOLE | st.floats(-4, 4, allow_subnormal=False)).filter(bool),
    intercept=WHOLE | st.floats(-4, 4),
)
def test_whole_numbers_give_what_float32_gives(dtype, ends, slope, intercept):
    limits = np.iinfo(dtype)
    low, high = sorted(min(max(end, limits.min), limits.max) for end in ends)
    stored = np.linspace(low, high, 12).astype(dtype).reshape(3, 4)
    frame = Frame(0, slope=float(slope), intercept=float(intercept))
    expected, found = rescaled(stored, frame), in_units(stored, frame)
    assert found.dtype in (np.int16, np.float32)
    assert found.astype(np.float32).tobytes() == expected.tobytes()  # the signs of zeros too


def by_position(datasets):
    return sorted(datasets, key=lambda one: one.ImagePositionPatient[2])


def files_in_order(folder):
    """By the position of their slices."""
    found = {read_instance(path).frames[0].position_mm[2]: path for path in folder.iterdir()}
    return [found[position] for position in sorted(found)]


def test_copies_that_differ_refuse_the_volume_and_equal_ones_do_not(tmp_path, write_series):
    write_series(tmp_path, pixels_of(0, 100, np.uint16))
    volume, files = planned(tmp_path)
    planes = {plane: next(read_planes(*files[plane[0]], (0,))) for plane in volume.planes}
    copy = (99, 0)
    doubled = replace(volume, verify_equal=((volume.planes[1], copy),))
    same = build_volume(doubled, {**planes, copy: planes[volume.planes[1]]})
    np.testing.assert_array_equal(same, build_volume(volume, planes))
    with pytest.raises(Skip) as refused:
        build_volume(doubled, {**planes, copy: planes[volume.planes[2]]})
    assert refused.value.reason == Reason.MULTIPLE_TIMES


def test_a_plane_of_another_size_refuses_the_volume(tmp_path, write_series):
    write_series(tmp_path, pixels_of(0, 100, np.uint16))
    volume, files = planned(tmp_path)
    planes = {plane: next(read_planes(*files[plane[0]], (0,))) for plane in volume.planes}
    planes[volume.planes[2]] = Plane(np.ones((7, 6), np.int16), None)
    with pytest.raises(Skip) as refused:
        build_volume(volume, planes)
    assert refused.value.reason == Reason.MIXED_GEOMETRY


def test_volumes_read_one_after_the_other_do_not_mix(tmp_path, write_series):
    reader = DirectReader()
    for seed, shape in enumerate([(5, 6, 7), (4, 3, 2), (6, 8, 9), (5, 6, 7)]):
        folder = tmp_path / str(seed)
        folder.mkdir()
        pixels = np.random.default_rng(seed).integers(0, 100, shape).astype(np.uint16)
        written = write_series(folder, pixels)
        volume, files = planned(folder)
        np.testing.assert_array_equal(reader.read(volume, files.__getitem__), in_float32(written))
