"""What is odd the tag walker leaves to pydicom."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilum.client.intake.headers import element_headers
from hilum.client.intake.headers.read_instance import read_tags
from hilum.client.intake.headers.walker import walk_tags
from hilum.client.intake.reasons import Skip
from walked_files import (
    ENCODINGS,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    again_and_again,
    body,
    explicit,
    implicit,
    item,
    learn_from,
    meta,
    open_sequence,
    same_as_pydicom,
    write,
)


@pytest.mark.parametrize(("syntax", "element"), ENCODINGS)
def test_a_file_cut_at_any_byte_gives_pydicoms_values_or_none(tmp_path, syntax, element):
    learn_from(tmp_path, syntax, element)
    nested = open_sequence(element, item(element(0x00081150, "UI", b"1.2\0") + ITEM_END, UNDEFINED))
    data = meta(syntax) + body(element, nested)
    answered = sum(
        same_as_pydicom(write(tmp_path / "a", data[:length])) is not None for length in range(len(data))
    )
    assert answered > 32  # at least those cut in their pixels


def changed(**changes):
    """The explicit file with one thing wrong with it."""
    good = meta(EXPLICIT) + body(explicit)
    old, new = changes["old"], changes["new"]
    assert good.count(old) == 1
    return good.replace(old, new)


ODD = {
    "another VR than the dictionary's": changed(old=b"\x20\0\x13\0IS", new=b"\x20\0\x13\0LO"),
    "a VR that does not exist": changed(old=b"\x09\0\x10\0LO", new=b"\x09\0\x10\0L?"),
    "an integer that is none": changed(old=b"17  ", new=b"1.5 "),
    "a number that is none": changed(old=b"1.25", new=b"1,25"),
    "an empty number among others": changed(old=b"-1.5\\2.25", new=b"\\-1.5\\225"),
    "text beyond ASCII": changed(old=b"AB 12 ", new=b"AB\xe412 "),
    "an escape sequence": changed(old=b"AB 12 ", new=b"AB\x1b(J2"),
    "a character set with another backslash": changed(old=b"ISO_IR 100", new=b"ISO_IR 13 "),
    "a character set that is none": changed(old=b"ISO_IR 100", new=b"ISO_IR 1\0\1"),
    "a nested character set that is none": meta(EXPLICIT)
    + body(explicit, open_sequence(explicit, item(explicit(0x00080005, "CS", b"ISO\0\1\2")))),
    "a syntax of another VR": changed(old=b"\x02\0\x10\0UI", new=b"\x02\0\x10\0OB"),
    "a wanted tag twice": changed(old=b"\x20\0\x0e\0UI", new=b"\x20\0\x0d\0UI"),
    "big endian": meta("1.2.840.10008.1.2.2") + body(explicit),
    "deflated": meta("1.2.840.10008.1.2.1.99") + body(explicit),
    "a private syntax": meta("1.2.3.4.5") + body(explicit),
    "no preamble": body(implicit),
    "stated implicit, written explicit": meta(IMPLICIT) + body(explicit),
    "stated explicit, written implicit": meta(EXPLICIT) + body(implicit),
    "no syntax": b"\0" * 128 + b"DICM" + body(explicit),
    "an odd number of bytes in a word": meta(EXPLICIT)
    + explicit(0x00280010, "US", b"abc")
    + explicit(0x7FE00010, "OW", b"\0" * 8),
    "an open sequence that never ends": meta(EXPLICIT)
    + body(explicit, explicit(0x00081140, "SQ", item(b""), UNDEFINED)),
    "an open element that is not a sequence": meta(EXPLICIT)
    + body(explicit, explicit(0x00081140, "UN", item(b"") + SEQUENCE_END, UNDEFINED)),
    "padding whose sign is not stated": meta(IMPLICIT)
    + implicit(0x00280120, "SS", b"\0\1")
    + implicit(0x7FE00010, "OW", b"\0" * 8),
    "a delimiter where none can be": meta(EXPLICIT) + body(explicit, ITEM_END),
}
LOST = {
    "a syntax of another VR",
    "a character set that is none",
    "a nested character set that is none",
    "deflated",
    "no syntax",
    "an odd number of bytes in a word",
    "an open sequence that never ends",
    "a delimiter where none can be",
    "padding whose sign is not stated",
}
"""Where pydicom finds no rows either."""


@pytest.mark.parametrize("what", ODD)
def test_whatever_is_odd_is_left_to_pydicom(tmp_path, what):
    learn_from(tmp_path, EXPLICIT, explicit)
    path = write(tmp_path / "a", ODD[what])
    assert again_and_again(path) is None
    try:
        rows = read_tags(path).get("Rows")
    except Skip:
        rows = None
    assert (rows == 4) == (what not in LOST)


def test_three_hundred_nested_sequences_are_left_to_pydicom_without_recursion(tmp_path):
    nested = b""
    for _ in range(300):
        nested = open_sequence(explicit, item(nested + ITEM_END, UNDEFINED))
    assert walk_tags(write(tmp_path / "a", meta(EXPLICIT) + body(explicit, nested))) is None


SEEDS = [
    meta(syntax)
    + body(
        element,
        open_sequence(
            element,
            item(
                element(0x00081150, "UI", b"1.2\0") + open_sequence(element, item(b"")) + ITEM_END, UNDEFINED
            ),
        ),
    )
    for syntax, element in ENCODINGS
]


@settings(deadline=None, max_examples=600, suppress_health_check=list(HealthCheck))
@given(
    seed=st.sampled_from(SEEDS),
    flips=st.lists(
        st.tuples(st.integers(128, len(SEEDS[0]) - 1), st.integers(0, 255)), min_size=1, max_size=4
    ),
)
def test_flipped_bytes_give_pydicoms_values_or_none(tmp_path_factory, seed, flips):
    data = bytearray(seed)
    for place, value in flips:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "flipped.dcm"
    element_headers.encoding_of.cache_clear()
    assert again_and_again(write(path, seed)) is not None
    same_as_pydicom(write(path, bytes(data)))
