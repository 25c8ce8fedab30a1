"""Where a compression loses: signs, bits above the sample's, padding."""

from dataclasses import replace

import imagecodecs
import numpy as np
import pytest

from hilum.client.intake.pixels.images import read_planes
from hilum.client.intake.reasons import Reason, Skip
from pixel_files import EXTENDED, J2K, JPEGLS, JPEGLS_NEAR, LOSSLESS, RLE, picture, write_any, write_encoded


def planes(path, instance):
    return list(read_planes(path, instance, [0]))


@pytest.mark.parametrize(("syntax", "error"), [(JPEGLS_NEAR, 2), (EXTENDED, 80)])
def test_samples_below_zero_keep_their_sign(tmp_path, syntax, error):
    # JPEG and JPEG-LS have no sign: two's complement is carried as it is, so it must not cross zero for a DCT.
    pixels = -1 - picture(bits=11)[None].astype(np.int16)
    instance = write_encoded(tmp_path / "a", pixels, syntax, BitsStored=12)
    [plane] = planes(tmp_path / "a", instance)
    assert np.abs(plane.values - pixels[0]).max() <= error


@pytest.mark.parametrize("wide", [False, True])
def test_a_sign_is_that_of_the_stream_or_of_the_sample(tmp_path, wide):
    pixels = picture(bits=12, signed=True)[None]
    cells = pixels[0].view(np.uint16) & (0xFFFF if wide else 0x0FFF)
    stream = imagecodecs.jpegls_encode(cells, level=1)
    instance = write_encoded(tmp_path / "a", pixels, JPEGLS_NEAR, streams=[stream], BitsStored=12)
    [plane] = planes(tmp_path / "a", instance)
    assert np.abs(plane.values - pixels[0]).max() <= 2


@pytest.mark.parametrize("syntax", [JPEGLS_NEAR, J2K])
@pytest.mark.parametrize("dark", [False, True])
def test_bits_above_the_sample_that_were_compressed_with_it_refuse_the_file(tmp_path, syntax, dark):
    pixels = (picture(bits=12) // (30 if dark else 1))[None].copy()
    pixels[0, ::3, ::3] |= 0x2000 if not dark else 0x1000
    encode = (
        imagecodecs.jpegls_encode(pixels[0], level=1)
        if syntax == JPEGLS_NEAR
        else imagecodecs.jpeg2k_encode(pixels[0], level=80, codecformat="j2k", bitspersample=16)
    )
    instance = write_encoded(tmp_path / "a", pixels, syntax, streams=[encode], BitsStored=12)
    with pytest.raises(Skip) as skip:
        planes(tmp_path / "a", instance)
    assert skip.value.reason == Reason.UNSUPPORTED_PIXELS


@pytest.mark.parametrize("syntax", [RLE, JPEGLS, LOSSLESS])
def test_padding_that_no_sample_can_have_is_found_in_compressed_cells(tmp_path, syntax):
    pixels = picture(bits=12)[None].copy()
    expected = pixels[0].copy()
    pixels[0, :5] = 0xF830
    instance = write_any(tmp_path / "a", pixels, syntax, BitsStored=12)
    [plane] = planes(tmp_path / "a", replace(instance, padding=(0xF830, 0xF830)))
    assert plane.empty is not None
    assert plane.empty[:5].all()
    assert not plane.empty[5:].any()
    np.testing.assert_array_equal(plane.values[5:], expected[5:])


@pytest.mark.parametrize(("family", "padding"), [("mr", 4095), ("ct", 4095), ("mr", 0), ("pet", 0)])
def test_padding_that_a_loss_has_moved_is_padding_at_either_end(tmp_path, family, padding):
    pixels = (500 + picture(bits=11))[None].copy()
    pixels[0, :9] = padding
    pixels[0, :9, ::2] += 2 if padding == 0 else -2 & 0xFFFF
    instance = write_encoded(tmp_path / "a", pixels, JPEGLS_NEAR, BitsStored=12)
    [plane] = planes(tmp_path / "a", replace(instance, family=family, padding=(padding, padding)))
    assert plane.empty is not None
    assert plane.empty[:9].all()
    assert not plane.empty[9:].any()


def test_values_that_go_on_from_the_padding_are_the_images(tmp_path):
    pixels = np.arange(2240, dtype=np.uint16).reshape(1, 40, 56)
    instance = write_encoded(tmp_path / "a", pixels, JPEGLS_NEAR, BitsStored=12)
    [plane] = planes(tmp_path / "a", replace(instance, family="mr", padding=(0, 0)))
    assert plane.empty is None or plane.empty.sum() <= 5
