"""Every transfer syntax, against the pixels that went in."""

import json
import logging

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.pixels import pixel_array

from hilum.client.intake.pixels import decoders
from hilum.client.intake.pixels.decoders import DECODERS, Decoder, in_bits, log_decoders
from hilum.client.intake.pixels.images import read_image, read_stored
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
    J2K_LOSSLESS,
    JPEGLS_NEAR,
    LOSSLESS,
    LOSSLESS_SV1,
    LOSSY,
    RLE,
    picture,
    write_any,
    write_encoded,
    write_native,
    write_raw,
)
from pixel_reads import EVERY, bits_for, refused, stored

EXACT = [s for s in ENCODERS if s not in LOSSY]


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


def test_encapsulated_uncompressed_frames_come_back(tmp_path):
    pixels = np.stack([picture(), picture(seed=1)])
    frames = [frame.astype("<u2").tobytes() for frame in pixels]
    instance = write_encoded(tmp_path / "a", pixels, ENCAPSULATED_NATIVE, streams=frames)
    np.testing.assert_array_equal(stored(tmp_path / "a", instance), pixels)


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


@pytest.mark.parametrize("syntax", [HT_RPCL, LOSSLESS, LOSSLESS_SV1, JPEGLS_NEAR, BIG])
def test_odd_sizes_come_back(tmp_path, syntax):
    pixels = picture((33, 17), bits=12)[None]
    instance = write_any(tmp_path / "a", pixels, syntax, BitsStored=12)
    assert np.abs(stored(tmp_path / "a", instance).astype(int) - pixels).max() <= LOSSY.get(syntax, 0)
