"""Hostile files through the sandbox: each ends as an image or under a reason, and this process lives."""

import random

import pytest

import fuzz_intake
import mutants
from hilum.client.intake.pixels.images import read_image
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.jobs import DecodeImage, Refused
from hilum.client.intake.sandbox.pool import DecodePool
from pixel_files import (
    BASELINE,
    ENCODERS,
    EXPLICIT,
    HT_LOSSLESS,
    HT_RPCL,
    J2K,
    JPEGLS,
    LOSSLESS,
    LOSSLESS_SV1,
    RLE,
    picture,
    write_any,
    write_encoded,
)


def test_three_hundred_mutants_are_all_accounted_for():
    done = fuzz_intake.fuzz(0, 300)
    assert sum(done.outcomes.values()) == 300
    assert set(done.outcomes) <= {"decoded", *(reason.value for reason in Reason)}
    assert done.outcomes["decoded"] > 50
    assert sum(done.outcomes[name] for name in ("truncated_pixels", "undecodable_pixels")) > 50


def test_a_seed_makes_the_same_mutant_again(tmp_path):
    write_any(tmp_path / "a", picture()[None], JPEGLS, BitsStored=12)
    content = (tmp_path / "a").read_bytes()
    for seed in range(100):
        assert mutants.mutant(seed, content, content[::-1]) == mutants.mutant(seed, content, content[::-1])


@pytest.mark.parametrize("name", sorted(mutants.MUTATIONS))
def test_each_mutation_changes_the_file(tmp_path, name):
    write_any(tmp_path / "a", picture()[None], JPEGLS, BitsStored=12)
    content = (tmp_path / "a").read_bytes()
    made = [
        mutants.MUTATIONS[name](random.Random(seed), bytearray(content), content[::-1]) for seed in range(20)
    ]
    assert sum(one != content for one in made) >= 15


def with_a_restart_among_the_tables(stream, table):
    """One bit of a table's marker flipped: what is left is a marker of no length. gdcm aborts at it."""
    return stream.replace(
        b"\xff" + table, b"\xff" + bytes([table[0] ^ 0x10 if table[0] == 0xC4 else 0xD3]), 1
    )


def with_a_segment_far_outside(stream):
    """One bit of the last offset flipped: dicomrle of imagecodecs reads there."""
    last = 4 * int.from_bytes(stream[:4], "little")
    return stream[: last + 3] + b"\x10" + stream[last + 4 :]


def with_tiles_of_no_width(stream):
    """One bit of the tiles' width flipped: OpenJPH divides by it."""
    size = stream.index(b"\xff\x51") + 2
    return stream[: size + 20] + b"\0\0\0\0" + stream[size + 24 :]


@pytest.mark.parametrize(
    ("syntax", "broken"),
    [
        (HT_LOSSLESS, with_tiles_of_no_width),
        (HT_RPCL, with_tiles_of_no_width),
        (J2K, with_tiles_of_no_width),
        (LOSSLESS_SV1, lambda stream: with_a_restart_among_the_tables(stream, b"\xc4")),
        (LOSSLESS, lambda stream: with_a_restart_among_the_tables(stream, b"\xc4")),
        (BASELINE, lambda stream: with_a_restart_among_the_tables(stream, b"\xdb")),
        (RLE, with_a_segment_far_outside),
    ],
)
def test_a_stream_that_killed_a_decoder_is_refused_without_a_death(tmp_path, syntax, broken):
    """Seeds of `fuzz_intake.py --index`: 5,006,717 (JPEG lossless), 5,013,650 (JPEG), 5,019,222 (RLE), 8,018,372 (HTJ2K)."""
    colour = picture((32, 40, 3), bits=8)
    good = ENCODERS[syntax](colour, 8)
    assert broken(good) != good
    instance = write_encoded(tmp_path / "a", colour[None], syntax, streams=[broken(good)])
    with DecodePool(1) as pool:
        (result,) = pool.map([DecodeImage(tmp_path / "a", instance)])
    assert result == Refused(Reason.UNDECODABLE_PIXELS)


def test_sequences_nested_thousands_deep_cost_nothing(tmp_path):
    """They break a parser that recurses; the pixels behind them are found and read all the same."""
    instance = write_any(tmp_path / "a", picture()[None], EXPLICIT)
    before = read_image(tmp_path / "a", instance)
    content = (tmp_path / "a").read_bytes()
    meta_end = mutants._meta_end(content)
    opened = (b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
    closed = (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * 5000
    (tmp_path / "b").write_bytes(content[:meta_end] + opened + closed + content[meta_end:])
    assert (read_image(tmp_path / "b", instance) == before).all()
    (tmp_path / "c").write_bytes(content[:meta_end] + opened + content[meta_end:])
    with pytest.raises(Skip):
        read_image(tmp_path / "c", instance)
