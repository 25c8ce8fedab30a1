"""Every photometric interpretation of colour, against the pixels that went in."""

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, pixel_array

from hilum.client.intake.pixels.images import read_image, read_planes
from hilum.client.intake.reasons import Reason
from pixel_files import (
    BASELINE,
    BIG,
    ENCAPSULATED_NATIVE,
    ENCODERS,
    EXPLICIT,
    EXTENDED,
    HT,
    IMPLICIT,
    J2K,
    J2K_LOSSLESS,
    JPEGLS,
    JPEGLS_NEAR,
    RLE,
    dataset_of,
    facts,
    picture,
    write_any,
    write_encoded,
    write_native,
    write_raw,
)
from pixel_reads import EVERY, refused, stored


@pytest.mark.parametrize("syntax", [s for s in EVERY if s != EXTENDED])
@pytest.mark.parametrize("frames", [1, 3])
def test_colour_comes_back_as_rgb(tmp_path, syntax, frames):
    pixels = np.stack([picture((40, 56, 3), bits=8, seed=k) for k in range(frames)])
    photometric = {BASELINE: "YBR_FULL_422", J2K_LOSSLESS: "YBR_RCT", J2K: "YBR_ICT"}.get(syntax, "RGB")
    instance = write_any(tmp_path / "a", pixels, syntax, PhotometricInterpretation=photometric)
    images = np.stack([read_image(tmp_path / "a", instance, k) for k in range(frames)])
    assert images.dtype == np.uint8
    assert images.shape == pixels.shape
    tolerance = {BASELINE: 24, J2K: 10, HT: 10, JPEGLS_NEAR: 2}.get(syntax, 0)
    assert np.abs(images.astype(int) - pixels).max() <= tolerance


@pytest.mark.parametrize(("syntax", "bits"), [(EXPLICIT, 8), (EXPLICIT, 16), (BIG, 16), (IMPLICIT, 32)])
def test_colour_by_plane_is_colour_by_pixel(tmp_path, syntax, bits):
    small = picture((6, 9, 3), bits=8)
    pixels = (small.astype(f"u{bits // 8}") << (bits - 8))[None]
    by_plane = np.ascontiguousarray(np.moveaxis(pixels, -1, 1))
    content = by_plane.astype(by_plane.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
    instance = write_raw(tmp_path / "a", pixels, content, syntax, PlanarConfiguration=1)
    np.testing.assert_array_equal(stored(tmp_path / "a", instance), pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a", instance), small)


def ycc(rgb):
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return np.rint(rgb @ matrix.T + [0, 128, 128]).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("syntax", [EXPLICIT, RLE, JPEGLS])
def test_ybr_full_becomes_rgb(tmp_path, syntax):
    rgb = picture((20, 30, 3), bits=8)
    instance = write_any(tmp_path / "a", ycc(rgb)[None], syntax, PhotometricInterpretation="YBR_FULL")
    assert np.abs(read_image(tmp_path / "a", instance).astype(int) - rgb).max() <= 2


def test_ybr_full_422_shares_colour_between_two_pixels(tmp_path):
    rgb = np.repeat(picture((20, 15, 3), bits=8), 2, axis=1)
    ybr = ycc(rgb)
    packed = np.concatenate([ybr[:, 0::2, :1], ybr[:, 1::2, :1], ybr[:, 0::2, 1:]], axis=2)  # Y1 Y2 Cb Cr
    instance = write_raw(
        tmp_path / "a", rgb[None], packed.tobytes(), EXPLICIT, PhotometricInterpretation="YBR_FULL_422"
    )
    assert np.abs(read_image(tmp_path / "a", instance).astype(int) - rgb).max() <= 2
    np.testing.assert_array_equal(stored(tmp_path / "a", instance)[0], pixel_array(tmp_path / "a", raw=True))


@pytest.mark.parametrize("planar", [0, 1])
def test_what_is_called_422_and_has_colour_for_every_pixel_is_refused(tmp_path, planar):
    ybr = ycc(picture((20, 30, 3), bits=8))
    laid = np.moveaxis(ybr, -1, 0) if planar else ybr
    named = {"PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": planar}
    instance = write_raw(tmp_path / "a", ybr[None], laid.tobytes(), EXPLICIT, **named)
    assert refused(read_planes, tmp_path / "a", instance, [0]) == Reason.UNSUPPORTED_PIXELS
    enclosed = write_encoded(
        tmp_path / "b", ybr[None], ENCAPSULATED_NATIVE, streams=[laid.tobytes()], **named
    )
    assert refused(read_planes, tmp_path / "b", enclosed, [0]) == Reason.UNSUPPORTED_PIXELS


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_a_jpeg_whose_header_still_says_rgb_is_what_its_jfif_marker_says(tmp_path, subsampling):
    rgb = picture((40, 56, 3), bits=8)
    stream = imagecodecs.jpeg8_encode(rgb, 98, subsampling=subsampling)
    instance = write_encoded(tmp_path / "a", rgb[None], BASELINE, streams=[stream])
    assert np.abs(read_image(tmp_path / "a", instance).astype(int) - rgb).max() <= 30


def test_a_jpeg_that_names_its_components_rgb_is_rgb_whatever_the_header_says(tmp_path):
    rgb = picture((40, 56, 3), bits=8)
    stream = imagecodecs.jpeg8_encode(rgb, 98, colorspace="RGB", outcolorspace="RGB")
    instance = write_encoded(
        tmp_path / "a", rgb[None], BASELINE, streams=[stream], PhotometricInterpretation="YBR_FULL"
    )
    assert np.abs(read_image(tmp_path / "a", instance).astype(int) - rgb).max() <= 10


def test_jpeg_ls_by_plane_by_line_and_by_pixel_are_the_same_picture(tmp_path):
    from jpeg_ls import encode_array

    rgb = picture((20, 30, 3), bits=8)
    for mode in (0, 1, 2):
        source = np.ascontiguousarray(np.moveaxis(rgb, -1, 0)) if mode == 0 else rgb
        stream = bytes(encode_array(source, interleave_mode=mode))
        instance = write_encoded(tmp_path / "a", rgb[None], JPEGLS, streams=[stream])
        np.testing.assert_array_equal(read_image(tmp_path / "a", instance), rgb, err_msg=f"mode {mode}")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("first", [0, 20])
def test_a_palette_becomes_rgb(tmp_path, bits, first):
    pixels = picture(bits=8)[None]
    rng = np.random.default_rng(0)
    tables = rng.integers(0, 1 << bits, (3, 200)).astype(f"<u{bits // 8}")
    dataset = dataset_of(pixels, RLE, PhotometricInterpretation="PALETTE COLOR")
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [200, first, bits])
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.tobytes())
    dataset.PixelData = encapsulate([ENCODERS[RLE](pixels[0], 8)])
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(tmp_path / "a", dataset, enforce_file_format=True)
    image = read_image(tmp_path / "a", facts(dataset))
    expected = apply_color_lut(pixels[0], dataset) >> (bits - 8)
    np.testing.assert_array_equal(image, expected)


def test_a_segmented_palette_becomes_rgb(tmp_path):
    pixels = np.arange(60, dtype=np.uint8).reshape(1, 6, 10)
    # Four entries as they are, 50 on a line to 250, one more: PS3.3 section C.7.9.2.
    segments = bytes([0, 4, 10, 20, 30, 40, 1, 50, 250, 0, 1, 7])
    dataset = dataset_of(pixels, EXPLICIT, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [55, 0, 8])
        dataset.add_new(f"Segmented{colour}PaletteColorLookupTableData", "OW", segments)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(tmp_path / "a", dataset, enforce_file_format=True)
    image = read_image(tmp_path / "a", facts(dataset))
    assert image[0, :4].tolist() == [[v] * 3 for v in (10, 20, 30, 40)]
    assert image[5, 3].tolist() == [250] * 3
    assert image[5, 4].tolist() == [7] * 3
    assert (np.diff(image[..., 0].ravel()[3:54].astype(int)) >= 0).all()


def test_an_unknown_photometric_interpretation_is_refused(tmp_path):
    rgb = picture((20, 30, 3), bits=8)[None]
    instance = write_native(tmp_path / "a", rgb, EXPLICIT, PhotometricInterpretation="CMYK")
    assert refused(read_image, tmp_path / "a", instance) == Reason.UNSUPPORTED_PIXELS
    assert refused(read_planes, tmp_path / "a", instance, [0]) == Reason.UNSUPPORTED_PIXELS
