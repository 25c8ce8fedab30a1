"""Pixels that end early or can't be what the header claims are refused, and never filled in."""

from dataclasses import replace

import imagecodecs
import numpy as np
import pytest

from hilum.client.intake.instance import Frame
from hilum.client.intake.pixels import decoders
from hilum.client.intake.pixels.decoders import Decoder
from hilum.client.intake.pixels.images import read_stored
from hilum.client.intake.pixels.layout import inflate_bounded
from hilum.client.intake.reasons import Reason, Skip
from pixel_files import (
    ENCODERS,
    EXPLICIT,
    J2K_LOSSLESS,
    JPEGLS,
    RLE,
    deflate_bomb,
    picture,
    write_any,
    write_encoded,
    write_native,
)
from pixel_reads import EVERY, bits_for, refused, stored


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
