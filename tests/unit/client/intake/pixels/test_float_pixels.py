"""Floating point pixels are values as they are, and what is no number in them is no data."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from hilum.client.intake.instance import Frame, Window
from hilum.client.intake.pixels.images import read_image, read_planes
from hilum.client.intake.pixels.luts import Table
from hilum.client.intake.reasons import Reason, Skip
from pixel_files import BIG, DEFLATED, EXPLICIT, IMPLICIT, picture, write_floats, write_native
from pixel_reads import stored


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_pixels_are_values_and_what_is_no_number_is_no_data(tmp_path, syntax, dtype):
    values = np.stack([picture(bits=12, seed=k).astype(dtype) / 7 - 100 for k in range(3)])
    values[1, 0, :3] = np.nan, np.inf, -np.inf
    instance = write_floats(tmp_path / "a", values, syntax)
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "a").pixel_array, values)
    np.testing.assert_array_equal(stored(tmp_path / "a", instance), values)
    planes = list(read_planes(tmp_path / "a", instance, range(3)))
    for plane, expected in zip(planes, values, strict=True):
        assert plane.values.dtype == np.dtype("<f4")
        np.testing.assert_array_equal(plane.values, expected.astype(np.float32))
    assert np.argwhere(planes[1].empty).tolist() == [[0, 0], [0, 1], [0, 2]]
    assert planes[0].empty is planes[2].empty is None


@pytest.mark.parametrize(
    ("dtype", "names"),
    [
        (np.float32, ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit")),
        (np.float64, ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit")),
    ],
)
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_a_float_padding_value_or_range_is_no_data(tmp_path, dtype, names, syntax):
    values = picture(bits=12).astype(dtype)[None] + 10
    values[0, 0, :3] = -1, -2.5, -4
    one = write_floats(tmp_path / "a", values, syntax, **{names[0]: -2.5})
    (plane,) = read_planes(tmp_path / "a", one, [0])
    assert np.argwhere(plane.empty).tolist() == [[0, 1]]
    several = write_floats(tmp_path / "b", values, syntax, **{names[0]: -1.0, names[1]: -3.0})
    (plane,) = read_planes(tmp_path / "b", several, [0])
    assert np.argwhere(plane.empty).tolist() == [[0, 0], [0, 1]]
    other = np.float32 if dtype == np.float64 else np.float64
    unheard = write_floats(tmp_path / "c", values.astype(other), syntax, **{names[0]: -2.5})
    assert next(read_planes(tmp_path / "c", unheard, [0])).empty is None


def test_float_pixels_without_data_do_not_spoil_what_is_shown(tmp_path):
    values = picture(bits=12).astype(np.float32)[None]
    plain = write_floats(tmp_path / "a", values, EXPLICIT)
    shown = Frame(0, window=Window(2000.0, 4000.0, "LINEAR_EXACT"))
    expected = read_image(tmp_path / "a", replace(plain, frames=(shown,)))
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    holed = write_floats(tmp_path / "b", values, EXPLICIT)
    found = read_image(tmp_path / "b", replace(holed, frames=(shown,)))
    assert found[0, :3].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(found[1:], expected[1:])
    with pytest.raises(Skip, match=Reason.CONSTANT_PIXELS):
        read_image(
            tmp_path / "c", write_floats(tmp_path / "c", np.full((1, 8, 8), np.nan, np.float32), EXPLICIT)
        )


@pytest.mark.parametrize(
    ("pixels", "slope"), [(np.float64(1e300), 1.0), (np.float32(1e38), 10.0), (np.uint16(7), 1e300)]
)
def test_a_value_too_large_for_float32_refuses_the_file(tmp_path, pixels, slope):
    values = np.zeros((1, 8, 8), pixels.dtype)
    values[0, 0, 0] = pixels
    write = write_native if pixels.dtype.kind == "u" else write_floats
    instance = replace(write(tmp_path / "a", values, EXPLICIT), frames=(Frame(0, slope=slope),))
    with pytest.raises(Skip, match=Reason.NOT_FINITE):
        list(read_planes(tmp_path / "a", instance, [0]))
    with pytest.raises(Skip, match=Reason.NOT_FINITE):
        read_image(tmp_path / "a", instance)


def test_float_pixels_that_the_header_calls_whole_and_the_reverse_are_refused(tmp_path):
    """They have one width: read as the other, they would be numbers of no meaning."""
    floats = write_floats(tmp_path / "a", picture().astype(np.float32)[None], EXPLICIT)
    whole = write_native(tmp_path / "b", picture().astype(np.uint32)[None], EXPLICIT)
    for path, lying in (("a", whole), ("b", floats)):
        with pytest.raises(Skip, match=Reason.UNSUPPORTED_PIXELS):
            stored(tmp_path / path, lying)


def test_a_table_gives_its_ends_for_numbers_that_no_whole_number_type_holds():
    table = Table(np.array([10, 20, 30, 40]), 2, False, 8)
    values = np.array([-1e30, 1.4, 2.4, 3.6, 5.2, 1e30], np.float32)
    assert table.look_up(values).tolist() == [10, 10, 10, 30, 40, 40]


def test_a_modality_table_has_no_entry_for_a_fraction(tmp_path):
    table = Dataset()
    table.add_new(0x00283002, "US", [4, 0, 16])
    table.add_new(0x00283006, "US", [1, 2, 3, 4])
    instance = write_floats(
        tmp_path / "a", picture().astype(np.float32)[None], EXPLICIT, ModalityLUTSequence=Sequence([table])
    )
    with pytest.raises(Skip, match=Reason.UNSUPPORTED_PIXELS):
        list(read_planes(tmp_path / "a", instance, [0]))
