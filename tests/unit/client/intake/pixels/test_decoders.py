"""Every transfer syntax and photometric interpretation, against the pixels that went in."""

import json
import logging
from dataclasses import replace

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import apply_color_lut, apply_voi_lut, pixel_array
from pydicom.sequence import Sequence

from hilum.client.intake.instance import Frame, Window
from hilum.client.intake.pixels import decoders
from hilum.client.intake.pixels.decoders import DECODERS, Decoder, in_bits, log_decoders
from hilum.client.intake.pixels.images import read_image, read_planes, read_stored
from hilum.client.intake.pixels.layout import inflate_bounded
from hilum.client.intake.pixels.luts import Table
from hilum.client.intake.reasons import Reason, Skip
from pixel_files import (
    BASELINE,
    BIG,
    DEFLATED,
    ENCAPSULATED_NATIVE,
    ENCODERS,
    EXPLICIT,
    EXTENDED,
    HT,
    HT_LOSSLESS,
    HT_RPCL,
    IMPLICIT,
    J2K,
    J2K_LOSSLESS,
    JPEGLS,
    JPEGLS_NEAR,
    LOSSLESS,
    LOSSLESS_SV1,
    LOSSY,
    RLE,
    dataset_of,
    deflate_bomb,
    facts,
    picture,
    write_any,
    write_encoded,
    write_floats,
    write_native,
    write_raw,
)

EXACT = [s for s in ENCODERS if s not in LOSSY]
EVERY = [IMPLICIT, EXPLICIT, BIG, DEFLATED, *ENCODERS]


def stored(path, instance, indices=None):
    return np.stack(list(read_stored(path, instance, indices or range(instance.pixels.frames))))


def refused(read, *args) -> Reason:
    with pytest.raises(Skip) as skip:
        list(read(*args))
    return skip.value.reason


def bits_for(syntax):
    return 8 if syntax == BASELINE else 12


@pytest.mark.parametrize("syntax", EVERY)
def test_unsigned_pixels_come_back(tmp_path, syntax):
    bits = bits_for(syntax)
    pixels = np.stack([picture(bits=bits), picture(bits=bits, seed=1)[:, ::-1]])
    instance = write_any(tmp_path / "a", pixels, syntax, BitsStored=bits)
    ours = stored(tmp_path / "a", instance)
    assert ours.dtype == pixels.dtype
    assert np.abs(ours.astype(int) - pixels).max() <= LOSSY.get(syntax, 0)


def test_white_stays_white_and_black_black_where_compression_loses(tmp_path):
    """A decoder that does not clip turns the overshoot at an edge into the other end of the range."""
    for syntax in LOSSY:
        for bits, dtype in ((8, np.uint8), (12, np.uint16)):
            if bits != bits_for(syntax) and syntax in {BASELINE, EXTENDED}:
                continue
            top = (1 << bits) - 1
            rng = np.random.default_rng(3)
            pixels = (np.kron(rng.integers(0, 2, (12, 16)), np.ones((5, 5))) * top).astype(dtype)[None]
            instance = write_encoded(tmp_path / "a", pixels, syntax, BitsStored=bits)
            error = np.abs(stored(tmp_path / "a", instance).astype(int) - pixels)
            assert error.max() < top / 4, (syntax, bits)


def test_an_htj2k_stream_that_loses_is_not_given_to_the_decoder_that_wraps(tmp_path):
    pixels = (np.kron(np.eye(9), np.ones((7, 7))) * 255).astype(np.uint8)[None]
    stream = ENCODERS[HT](pixels[0], 8)
    instance = write_encoded(tmp_path / "a", pixels, HT_LOSSLESS, streams=[stream])
    assert np.abs(stored(tmp_path / "a", instance).astype(int) - pixels).max() < 64
    with pytest.raises(ValueError, match="wrap"):
        DECODERS[HT_LOSSLESS][0].decode(stream, instance.pixels)


@pytest.mark.parametrize("bits", [8, 12, 13, 16])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED, *EXACT])
def test_signed_pixels_come_back_with_their_sign(tmp_path, syntax, bits):
    pixels = picture(bits=bits, signed=True)[None]
    assert pixels.min() < 0 < pixels.max()
    instance = write_any(tmp_path / "a", pixels, syntax, BitsStored=bits)
    ours = stored(tmp_path / "a", instance)
    assert ours.dtype == pixels.dtype
    np.testing.assert_array_equal(ours, pixels)


@pytest.mark.parametrize("syntax", [J2K_LOSSLESS, HT_LOSSLESS])
@pytest.mark.parametrize("signed_stream", [True, False])
def test_a_sign_that_the_code_stream_denies_is_the_headers(tmp_path, syntax, signed_stream):
    """What pydicom documents: 13 bits signed, encoded as if they were not, and the other way round."""
    values = picture(bits=13, signed=True)
    as_unsigned = (values.view(np.uint16) & 0x1FFF)[None]
    if signed_stream:
        # The header says unsigned, the stream signed: the bits are those of the unsigned value.
        stream = imagecodecs.jpeg2k_encode(
            values, level=0, reversible=True, codecformat="j2k", bitspersample=13
        )
        instance = write_encoded(tmp_path / "a", as_unsigned, J2K_LOSSLESS, streams=[stream], BitsStored=13)
        expected = as_unsigned
    else:
        stream = ENCODERS[J2K_LOSSLESS](as_unsigned[0], 13)
        instance = write_encoded(tmp_path / "a", values[None], J2K_LOSSLESS, streams=[stream], BitsStored=13)
        expected = values[None]
    ours = stored(tmp_path / "a", instance)
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(ours[0], pixel_array(tmp_path / "a", raw=True))


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


def test_bytes_in_big_endian_words_come_back_in_order_at_odd_frame_sizes(tmp_path):
    pixels = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(3, 5, 7)
    flat = pixels.tobytes() + b"\0"
    swapped = np.frombuffer(flat, "<u2").byteswap().tobytes()
    instance = write_raw(tmp_path / "a", pixels, swapped, BIG, vr="OW")
    np.testing.assert_array_equal(stored(tmp_path / "a", instance), pixels)
    np.testing.assert_array_equal(stored(tmp_path / "a", instance, [2]), pixels[2:])
    np.testing.assert_array_equal(pixel_array(tmp_path / "a", raw=True), pixels)


def test_overlay_bits_and_a_high_bit_elsewhere_are_no_part_of_the_value(tmp_path):
    values = picture(bits=12)
    noisy = (values | 0xA000)[None].astype(np.uint16)
    instance = write_native(tmp_path / "a", noisy, EXPLICIT, BitsStored=12)
    np.testing.assert_array_equal(stored(tmp_path / "a", instance)[0], values)
    shifted = ((values << 4) | 0x7)[None].astype(np.uint16)
    for write, syntax in ((write_native, EXPLICIT), (write_encoded, RLE)):
        instance = write(tmp_path / "b", shifted, syntax, BitsStored=12, HighBit=15)
        np.testing.assert_array_equal(stored(tmp_path / "b", instance)[0], values)


def test_bits_are_cut_out_of_their_container_by_hand():
    cells = np.array([0xF0FF, 0x0800, 0x07FF, 0x1234], np.uint16)
    assert in_bits(cells, 12, 12, signed=False).tolist() == [0x0FF, 0x800, 0x7FF, 0x234]
    assert in_bits(cells, 12, 12, signed=True).tolist() == [0x0FF, -0x800, 0x7FF, 0x234]
    assert in_bits(cells, 12, 16, signed=True).tolist() == [-0x0F1, 0x080, 0x07F, 0x123]


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


@pytest.mark.parametrize("bits", [17, 24, 31, 32])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG, RLE, HT_LOSSLESS, J2K_LOSSLESS])
def test_32_bit_pixels_come_back(tmp_path, syntax, bits, signed):
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    pixels = np.random.default_rng(bits).integers(least, most, (1, 21, 17), endpoint=True)
    pixels[0, 0, :2] = least, most
    pixels = pixels.astype(np.int32 if signed else np.uint32)
    instance = write_any(tmp_path / "a", pixels, syntax, BitsStored=bits)
    if syntax == J2K_LOSSLESS and bits > 24:  # OpenJPEG gives other pixels
        with pytest.raises(Skip, match=Reason.UNDECODABLE_PIXELS):
            stored(tmp_path / "a", instance)
        return
    np.testing.assert_array_equal(stored(tmp_path / "a", instance), pixels)
    if syntax != HT_LOSSLESS:  # which pydicom reads with the help of another package only
        np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "a").pixel_array, pixels[0])


def test_large_whole_numbers_less_a_large_intercept_keep_their_digits(tmp_path):
    pixels = (2_000_000_000 + np.arange(64, dtype=np.int64)).astype(np.uint32).reshape(1, 8, 8)
    instance = replace(
        write_native(tmp_path / "a", pixels, EXPLICIT), frames=(Frame(0, intercept=-2_000_000_000.0),)
    )
    (plane,) = read_planes(tmp_path / "a", instance, [0])
    np.testing.assert_array_equal(plane.values, np.arange(64).reshape(8, 8))


def test_encapsulated_uncompressed_frames_come_back(tmp_path):
    pixels = np.stack([picture(), picture(seed=1)])
    frames = [frame.astype("<u2").tobytes() for frame in pixels]
    instance = write_encoded(tmp_path / "a", pixels, ENCAPSULATED_NATIVE, streams=frames)
    np.testing.assert_array_equal(stored(tmp_path / "a", instance), pixels)


# Where the pixels lie.


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_frames_of_several_fragments_are_put_together(tmp_path, table):
    pixels = np.stack([picture(seed=k) for k in range(3)])
    streams = [ENCODERS[J2K_LOSSLESS](frame, 12) for frame in pixels]
    dataset = dataset_of(pixels, J2K_LOSSLESS, BitsStored=12)
    if table == "extended":
        content, offsets, lengths = encapsulate_extended(streams)
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    else:
        content = encapsulate(streams, fragments_per_frame=3, has_bot=table == "basic")
    dataset.PixelData = content
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(tmp_path / "a", dataset, enforce_file_format=True)
    np.testing.assert_array_equal(stored(tmp_path / "a", facts(dataset)), pixels)
    np.testing.assert_array_equal(stored(tmp_path / "a", facts(dataset), [2, 0]), pixels[[2, 0]])


def test_an_icons_pixels_are_not_the_images(tmp_path):
    icon = Dataset()
    icon.Rows = icon.Columns = 4
    icon.PixelData = bytes(16)
    icon["PixelData"].VR = "OB"
    icon.is_undefined_length_sequence_item = True
    pixels = picture()[None]
    for syntax in (IMPLICIT, EXPLICIT, BIG):
        dataset = dataset_of(pixels, syntax)
        dataset.IconImageSequence = [icon]
        dataset["IconImageSequence"].is_undefined_length = True
        order = ">" if syntax == BIG else "<"
        dataset.PixelData = pixels.astype(f"{order}u2").tobytes()
        dataset["PixelData"].VR = "OW"
        pydicom.dcmwrite(tmp_path / "a", dataset, enforce_file_format=True)
        np.testing.assert_array_equal(stored(tmp_path / "a", facts(dataset)), pixels)


def test_a_file_without_preamble_or_meta_is_read(tmp_path):
    pixels = picture()[None]
    instance = write_native(tmp_path / "a", pixels, IMPLICIT)
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "b").write_bytes(content[132:])
    np.testing.assert_array_equal(stored(tmp_path / "b", instance), pixels)
    meta_end = 12 + int.from_bytes(content[140:144], "little")
    (tmp_path / "c").write_bytes(content[132 + meta_end :])
    np.testing.assert_array_equal(stored(tmp_path / "c", instance), pixels)


# What is refused.


@pytest.mark.parametrize("syntax", EVERY)
def test_pixels_that_end_too_early_are_refused_and_never_filled_in(tmp_path, syntax):
    pixels = picture((64, 96), bits=bits_for(syntax))[None]
    instance = write_any(tmp_path / "a", pixels, syntax, BitsStored=bits_for(syntax))
    content = (tmp_path / "a").read_bytes()
    for keep in (0.97, 0.75):
        (tmp_path / "b").write_bytes(content[: int(keep * len(content))])
        assert refused(read_stored, tmp_path / "b", instance, [0]) == Reason.TRUNCATED_PIXELS


@pytest.mark.parametrize("syntax", [s for s in ENCODERS if s != RLE])
def test_a_code_stream_that_was_cut_is_refused_though_the_file_is_whole(tmp_path, syntax):
    pixels = picture((64, 96), bits=bits_for(syntax))[None]
    whole = ENCODERS[syntax](pixels[0], bits_for(syntax))
    for keep in (0.95, 0.5):
        cut = whole[: int(keep * len(whole))]
        instance = write_encoded(tmp_path / "a", pixels, syntax, streams=[cut], BitsStored=bits_for(syntax))
        assert refused(read_stored, tmp_path / "a", instance, [0]) == Reason.TRUNCATED_PIXELS


def test_an_rle_frame_that_was_cut_is_refused(tmp_path):
    pixels = picture()[None]
    cut = ENCODERS[RLE](pixels[0], 12)[:-200]
    instance = write_encoded(tmp_path / "a", pixels, RLE, streams=[cut])
    assert refused(read_stored, tmp_path / "a", instance, [0]) == Reason.UNDECODABLE_PIXELS


@pytest.mark.parametrize("syntax", [s for s in ENCODERS if s != RLE])
def test_a_code_stream_of_another_size_than_the_header_says_is_refused_before_it_is_decoded(
    tmp_path, monkeypatch, syntax
):
    pixels = picture((64, 96), bits=bits_for(syntax))[None]
    stream = ENCODERS[syntax](pixels[0], bits_for(syntax))
    instance = write_encoded(
        tmp_path / "a", pixels[:, :32], syntax, streams=[stream], BitsStored=bits_for(syntax)
    )
    monkeypatch.setattr(decoders, "DECODERS", {syntax: (Decoder("never", "numpy", lambda *_: 1 / 0),)})
    monkeypatch.setattr(decoders, "_contained", lambda *_: pytest.fail("decoded"))
    assert refused(read_stored, tmp_path / "a", instance, [0]) == Reason.UNDECODABLE_PIXELS


def test_fewer_frames_than_claimed_are_refused(tmp_path):
    pixels = np.stack([picture(), picture()])
    for syntax in (EXPLICIT, RLE, J2K_LOSSLESS):
        instance = write_any(tmp_path / "a", pixels, syntax, BitsStored=12)
        more = replace(
            instance,
            pixels=replace(instance.pixels, frames=3),
            frames=tuple(Frame(k) for k in range(3)),
        )
        assert refused(read_stored, tmp_path / "a", more, [2]) == Reason.TRUNCATED_PIXELS


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rows": 0}, Reason.IMPLAUSIBLE_SIZE),
        ({"rows": 20_000, "columns": 1}, Reason.IMPLAUSIBLE_SIZE),
        ({"frames": 0}, Reason.IMPLAUSIBLE_SIZE),
        ({"rows": 16_384, "columns": 16_384}, Reason.IMPLAUSIBLE_SIZE),
        ({"rows": 80}, Reason.TRUNCATED_PIXELS),
        ({"frames": 2_000_000_000}, Reason.IMPLAUSIBLE_SIZE),
        ({"bits_allocated": 1, "bits_stored": 1, "high_bit": 0}, Reason.UNSUPPORTED_PIXELS),
        ({"bits_allocated": 64, "bits_stored": 64, "high_bit": 63}, Reason.UNSUPPORTED_PIXELS),
        ({"kind": "float"}, Reason.UNSUPPORTED_PIXELS),
        ({"samples": 4}, Reason.UNSUPPORTED_PIXELS),
        ({"bits_stored": 17}, Reason.UNSUPPORTED_PIXELS),
        ({"high_bit": 3}, Reason.UNSUPPORTED_PIXELS),
        ({"high_bit": 16}, Reason.UNSUPPORTED_PIXELS),
        ({"syntax": "1.2.840.10008.1.2.4.102"}, Reason.UNSUPPORTED_SYNTAX),
        ({"syntax": JPEGLS, "rows": 10_000, "columns": 10_000}, Reason.TOO_LARGE),
        ({"syntax": RLE, "frames": 1_000}, Reason.IMPLAUSIBLE_SIZE),
    ],
)
def test_a_claim_that_cannot_be_true_is_refused_before_anything_is_read(
    tmp_path, monkeypatch, changes, reason
):
    instance = write_native(tmp_path / "a", picture()[None], EXPLICIT)
    monkeypatch.setattr("hilum.client.intake.pixels.raw_frames.open_layout", lambda *_: pytest.fail("opened"))
    lying = replace(instance, pixels=replace(instance.pixels, **changes))
    assert refused(read_stored, tmp_path / "a", lying, [0]) == reason


def test_the_most_that_each_syntax_compresses_is_not_refused(tmp_path):
    """A black picture, as well compressed as its encoder can, is still plausible."""
    for syntax in ENCODERS:
        bits = bits_for(syntax)
        black = np.zeros((1, 1024, 1024), np.uint8 if bits == 8 else np.uint16)
        instance = write_encoded(tmp_path / "a", black, syntax, BitsStored=bits)
        assert not stored(tmp_path / "a", instance).any(), syntax


def test_a_deflate_bomb_is_refused_without_being_inflated(tmp_path):
    instance = deflate_bomb(tmp_path / "a", 100 << 20)
    assert refused(read_stored, tmp_path / "a", instance, [0]) == Reason.IMPLAUSIBLE_SIZE
    content = imagecodecs.deflate_encode(bytes(1 << 20), raw=True)
    assert len(content) < 10_000
    with pytest.raises(Skip) as skip:
        inflate_bounded(content)
    assert skip.value.reason == Reason.IMPLAUSIBLE_SIZE


def test_what_no_decoder_takes_is_refused_and_a_panic_asks_the_next(tmp_path, monkeypatch):
    pixels = picture()[None]
    instance = write_encoded(tmp_path / "a", pixels, RLE)

    def panic(*_):
        raise GeneratorExit  # no Exception, as a panic in Rust

    def wrong_shape(*_):
        return np.zeros((3, 3), np.uint16)

    def floats(*_):
        return pixels[0].astype(float)

    bad = [Decoder("bad", "numpy", one) for one in (panic, wrong_shape, floats)]
    good = Decoder("good", "numpy", lambda *_: pixels[0])
    monkeypatch.setattr(decoders, "DECODERS", {RLE: (*bad, good)})
    np.testing.assert_array_equal(stored(tmp_path / "a", instance), pixels)
    monkeypatch.setattr(decoders, "DECODERS", {RLE: tuple(bad)})
    assert refused(read_stored, tmp_path / "a", instance, [0]) == Reason.UNDECODABLE_PIXELS


@pytest.mark.parametrize(
    ("syntax", "decoder"), [(syntax, one) for syntax, several in DECODERS.items() for one in several]
)
def test_every_decoder_in_the_table_gives_the_same_pixels(tmp_path, monkeypatch, syntax, decoder):
    bits = bits_for(syntax)
    monkeypatch.setattr(decoders, "DECODERS", {syntax: (decoder,)})
    pixels = picture(bits=bits)[None]
    instance = write_encoded(tmp_path / "a", pixels, syntax, BitsStored=bits)
    ours = stored(tmp_path / "a", instance).astype(int)
    assert np.abs(ours - pixels).max() <= LOSSY.get(syntax, 0)
    if syntax != EXTENDED:
        rgb = picture((20, 30, 3), bits=8)[None]
        photometric = "YBR_FULL_422" if syntax == BASELINE else "RGB"
        instance = write_encoded(tmp_path / "b", rgb, syntax, PhotometricInterpretation=photometric)
        image = read_image(tmp_path / "b", instance).astype(int)
        assert np.abs(image - rgb[0]).max() <= (24 if syntax == BASELINE else 10) * (syntax in LOSSY)


def test_the_order_of_decoders_is_logged_once_with_versions(caplog):
    log_decoders.cache_clear()
    with caplog.at_level(logging.INFO):
        log_decoders()
        log_decoders()
    assert len(caplog.messages) == len(DECODERS)
    assert all("imagecodecs 20" in line for line in caplog.messages)
    json.dumps({uid: [f"{one.name} {one.version}" for one in several] for uid, several in DECODERS.items()})


# Values.


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


def test_no_copy_of_the_whole_file_is_made_to_read_one_frame(tmp_path):
    import tracemalloc

    pixels = np.stack([picture((256, 256))] * 100)
    instance = write_native(tmp_path / "a", pixels, EXPLICIT)
    tracemalloc.start()
    stored(tmp_path / "a", instance, [99])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20 < pixels.nbytes


@pytest.mark.parametrize("syntax", [HT_RPCL, LOSSLESS, LOSSLESS_SV1, JPEGLS_NEAR, BIG])
def test_odd_sizes_come_back(tmp_path, syntax):
    pixels = picture((33, 17), bits=12)[None]
    instance = write_any(tmp_path / "a", pixels, syntax, BitsStored=12)
    assert np.abs(stored(tmp_path / "a", instance).astype(int) - pixels).max() <= LOSSY.get(syntax, 0)
