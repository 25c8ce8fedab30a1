"""From stored pixels to values with units, and to what is shown."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut

from hilum.client.intake.instance import Frame, Window
from hilum.client.intake.pixels.images import read_image, read_planes
from hilum.client.intake.reasons import Reason
from pixel_files import BIG, DEFLATED, EXPLICIT, IMPLICIT, dataset_of, facts, picture, write_native
from pixel_reads import refused


def test_large_whole_numbers_less_a_large_intercept_keep_their_digits(tmp_path):
    pixels = (2_000_000_000 + np.arange(64, dtype=np.int64)).astype(np.uint32).reshape(1, 8, 8)
    instance = replace(
        write_native(tmp_path / "a", pixels, EXPLICIT), frames=(Frame(0, intercept=-2_000_000_000.0),)
    )
    (plane,) = read_planes(tmp_path / "a", instance, [0])
    np.testing.assert_array_equal(plane.values, np.arange(64).reshape(8, 8))


def test_hounsfield_units_are_never_inverted_and_what_is_shown_is(tmp_path):
    pixels = picture(bits=12)[None]
    grey = write_native(tmp_path / "a", pixels, EXPLICIT, BitsStored=12)
    inverted = write_native(
        tmp_path / "b", pixels, EXPLICIT, BitsStored=12, PhotometricInterpretation="MONOCHROME1"
    )
    frames = (Frame(0, slope=1.5, intercept=-1024.0),)
    grey, inverted = replace(grey, frames=frames), replace(inverted, frames=frames)
    (one,) = read_planes(tmp_path / "a", grey, [0])
    (other,) = read_planes(tmp_path / "b", inverted, [0])
    np.testing.assert_array_equal(one.values, pixels[0] * np.float32(1.5) - np.float32(1024))
    np.testing.assert_array_equal(one.values, other.values)
    assert one.empty is None
    shown, negative = read_image(tmp_path / "a", grey), read_image(tmp_path / "b", inverted)
    assert np.abs(shown.astype(int) + negative - 65_535).max() <= 1


@pytest.mark.parametrize("padding", [(-2000, -2000), (63_536, 63_536)])
def test_padding_written_with_the_wrong_sign_is_still_padding(tmp_path, padding):
    pixels = picture(bits=12, signed=True)[None].copy()
    pixels[0, :5] = -2000
    instance = replace(write_native(tmp_path / "a", pixels, EXPLICIT), padding=padding)
    (plane,) = read_planes(tmp_path / "a", instance, [0])
    np.testing.assert_array_equal(plane.empty, pixels[0] == -2000)


def test_padding_that_no_sample_can_have_is_found_in_the_cells(tmp_path):
    pixels = picture(bits=12)[None].copy()
    expected = pixels[0].copy()
    pixels[0, :5] = 0xFFF0
    instance = write_native(tmp_path / "a", pixels, EXPLICIT, BitsStored=12)
    (plane,) = read_planes(tmp_path / "a", replace(instance, padding=(0xFFF0, 0xFFF0)), [0])
    assert plane.empty is not None
    assert plane.empty[:5].all()
    assert not plane.empty[5:].any()
    np.testing.assert_array_equal(plane.values[5:], expected[5:])


def test_a_range_of_padding_is_a_range_in_either_order(tmp_path):
    pixels = np.arange(12, dtype=np.int16).reshape(1, 3, 4) - 4
    instance = write_native(tmp_path / "a", pixels, EXPLICIT)
    for padding in ((-3, 2), (2, -3), (65_533, 2)):
        (plane,) = read_planes(tmp_path / "a", replace(instance, padding=padding), [0])
        np.testing.assert_array_equal(plane.empty, (pixels[0] >= -3) & (pixels[0] <= 2))


def lut(first, entries, bits, vr="US"):
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) & 0xFFFF, first, bits])
    item.add_new("LUTData", "US", entries)
    return item


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("first", [0, -40])
def test_a_modality_table_stands_in_for_slope_and_intercept(tmp_path, syntax, first):
    pixels = np.arange(120, dtype=np.int16).reshape(1, 10, 12) - 50
    entries = [int(1000 + 3 * k * k) % 65_536 for k in range(60)]
    dataset = dataset_of(pixels, syntax)
    dataset.ModalityLUTSequence = [lut(first, entries, 16, "SS")]
    dataset.ModalityLUTSequence[0].ModalityLUTType = "HU"
    order = ">" if syntax == BIG else "<"
    dataset.PixelData = pixels.astype(f"{order}i2").tobytes()
    dataset["PixelData"].VR = "OW"
    pydicom.dcmwrite(tmp_path / "a", dataset, enforce_file_format=True)
    instance = replace(facts(dataset), frames=(Frame(0, slope=99.0, intercept=5.0),))
    (plane,) = read_planes(tmp_path / "a", instance, [0])
    expected = np.array(entries, np.float32)[np.clip(pixels[0] - first, 0, 59)]
    np.testing.assert_array_equal(plane.values, expected)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_voi_table_says_how_values_are_shown(tmp_path, bits):
    pixels = picture(bits=8).astype(np.uint16)[None]
    top = (1 << bits) - 1
    entries = [int(top * (k / 199) ** 2) for k in range(200)]
    dataset = dataset_of(pixels, EXPLICIT)
    dataset.VOILUTSequence = [lut(30, entries, bits)]
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    pydicom.dcmwrite(tmp_path / "a", dataset, enforce_file_format=True)
    expected = apply_voi_lut(pixels[0], dataset).astype(float) / top * 65_535
    assert np.abs(read_image(tmp_path / "a", facts(dataset)) - expected).max() <= 1


def test_constant_pixels_are_no_image(tmp_path):
    grey = write_native(tmp_path / "a", np.full((1, 8, 8), 7, np.uint16), EXPLICIT)
    colour = write_native(tmp_path / "b", np.full((1, 8, 8, 3), 7, np.uint8), EXPLICIT)
    assert refused(read_image, tmp_path / "a", grey) == Reason.CONSTANT_PIXELS
    assert refused(read_image, tmp_path / "b", colour) == Reason.CONSTANT_PIXELS


def test_the_windows_are_those_of_the_standard():
    from hilum.client.intake.pixels.rescale import apply_window

    values = np.array([-1e9, 0, 50, 100, 1e9], np.float32)
    np.testing.assert_allclose(
        apply_window(values, Window(50, 100, "LINEAR")), [0, 0, 0.5 + 0.5 / 99, 1, 1], atol=1e-6
    )
    np.testing.assert_allclose(apply_window(values, Window(50, 100, "LINEAR_EXACT")), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(
        apply_window(values, Window(50, 100, "SIGMOID"))[1:4],
        [1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-2))],
        rtol=1e-5,
    )
    assert apply_window(np.array([49.0, 50.0], np.float32), Window(50, 1, "LINEAR")).tolist() == [0, 1]
