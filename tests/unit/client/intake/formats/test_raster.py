"""Pictures are read from black to white, upright, and refused before they can do harm."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from hilum.client.intake.formats.raster import read_raster
from hilum.client.intake.reasons import Skip

SHAPE = (12, 17)


def grey8():
    return np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


def grey16():
    return np.random.default_rng(0).integers(0, 65536, SHAPE).astype(np.uint16)


def rgb():
    return np.random.default_rng(0).integers(0, 256, (*SHAPE, 3)).astype(np.uint8)


def reason_of(path, *, colour=False):
    with pytest.raises(Skip) as caught:
        read_raster(path, colour=colour)
    return caught.value.reason.value


@pytest.mark.parametrize("name", ["a.png", "a.tif", "A.TIFF"])
def test_grey_pictures_run_from_0_black_to_65535_white(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(grey8()).save(path)
    np.testing.assert_array_equal(read_raster(path, colour=False), grey8().astype(int) * 257)
    Image.fromarray(grey16()).save(path)
    np.testing.assert_array_equal(read_raster(path, colour=False), grey16())
    Image.fromarray(grey8() > 100).save(path)
    np.testing.assert_array_equal(read_raster(path, colour=False), (grey8() > 100) * 65535)


@pytest.mark.parametrize("values", [grey8(), grey16()], ids=["8 bits", "16 bits"])
def test_a_tiff_that_stores_white_as_zero_is_turned_round(tmp_path, values):
    path = tmp_path / "a.tif"
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    Image.fromarray(values).save(path, tiffinfo=tags)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    assert data[at] == 1
    data[at] = 0
    path.write_bytes(data)
    scale = 257 if values.dtype == np.uint8 else 1
    np.testing.assert_array_equal(read_raster(path, colour=False), 65535 - values.astype(int) * scale)


def test_grey_that_is_stored_as_colour_or_by_a_palette_stays_grey(tmp_path):
    path = tmp_path / "a.png"
    for mode in ("RGB", "RGBA", "P"):
        Image.fromarray(grey8()).convert(mode).save(path)
        np.testing.assert_array_equal(read_raster(path, colour=False), grey8().astype(int) * 257)
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Image.fromarray(smooth).convert("RGB").save(tmp_path / "a.jpg", quality=95)
    found = read_raster(tmp_path / "a.jpg", colour=False)
    assert np.abs(found.astype(int) - smooth.astype(int) * 257).max() <= 4 * 257


def test_photographs_keep_their_colours_and_radiographs_in_colour_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(rgb()).save(path)
    np.testing.assert_array_equal(read_raster(path, colour=True), rgb())
    assert reason_of(path) == "unsupported_pixel_format"
    Image.fromarray(grey8()).save(path)
    np.testing.assert_array_equal(read_raster(path, colour=True), np.repeat(grey8()[..., None], 3, 2))


def test_what_is_transparent_is_black(tmp_path):
    path = tmp_path / "a.png"
    alpha = np.where(np.arange(SHAPE[1]) < 5, 0, 255).astype(np.uint8) * np.ones((SHAPE[0], 1), np.uint8)
    Image.fromarray(np.dstack([rgb(), alpha])).save(path)
    found = read_raster(path, colour=True)
    assert not found[:, :5].any()
    np.testing.assert_array_equal(found[:, 5:], rgb()[:, 5:])
    Image.fromarray(np.dstack([grey8(), alpha])).save(path)
    found = read_raster(path, colour=False)
    assert not found[:, :5].any()
    np.testing.assert_array_equal(found[:, 5:], grey8()[:, 5:].astype(int) * 257)


def test_a_picture_is_turned_upright(tmp_path):
    path = tmp_path / "a.png"
    for values in (grey8(), grey16()):
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by 90 degrees clockwise
        Image.fromarray(values).save(path, exif=exif)
        upright = np.rot90(values, -1).astype(int) * (257 if values.dtype == np.uint8 else 1)
        np.testing.assert_array_equal(read_raster(path, colour=False), upright)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("size", [(100_000, 10), (16_000, 16_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path, size):
    start = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", start) + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert reason_of(tmp_path / "a.png") == "too_large"


def test_broken_pictures_give_reasons(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif"):
        path = tmp_path / name
        Image.fromarray(grey8()).save(path)
        whole = path.read_bytes()
        for length in (0, 5, 30, len(whole) // 2):
            path.write_bytes(whole[:length])
            assert reason_of(path) == "damaged_file"
    Image.fromarray(np.full(SHAPE, 7, np.uint8)).save(tmp_path / "a.png")
    assert reason_of(tmp_path / "a.png") == "constant_pixels"
    Image.fromarray(grey8()).save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(grey8())])
    assert reason_of(tmp_path / "a.tif") == "unsupported_pixel_format"
    Image.fromarray(np.zeros(SHAPE, np.float32)).save(tmp_path / "b.tif")
    assert reason_of(tmp_path / "b.tif") == "unsupported_pixel_format"
    Image.fromarray(rgb()).convert("CMYK").save(tmp_path / "b.jpg")
    assert reason_of(tmp_path / "b.jpg", colour=True) == "unsupported_pixel_format"
    assert reason_of(tmp_path / "absent.png") == "unreadable"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_every_mutant_of_a_picture_is_read_or_gives_a_reason(tmp_path, name):
    path, rng = tmp_path / name, np.random.default_rng(2)
    Image.fromarray(grey8()).save(path)
    whole = path.read_bytes()
    kept = 0
    for _ in range(300):
        mutant = bytearray(whole)
        for at in rng.integers(2, len(whole), 2):
            mutant[at] = rng.integers(256)
        path.write_bytes(mutant)
        try:
            found = read_raster(path, colour=False)
        except Skip:
            continue
        assert found.dtype == np.uint16
        kept += 1
    assert kept < 300
