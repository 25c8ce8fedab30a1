"""Small DICOM headers made byte by byte, and what the tag walker says of them held against pydicom."""

import struct

import pytest

from hilum.client.intake.headers import element_headers
from hilum.client.intake.headers.pydicom_tags import pydicom_tags
from hilum.client.intake.headers.walker import walk_tags
from hilum.client.intake.reasons import Reason, Skip

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
LONG = {"OB", "OW", "SQ", "UN", "UT"}
UNDEFINED = 0xFFFFFFFF


def explicit(tag, vr, value=b"", length=None):
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    length = len(value) if length is None else length
    return head + (struct.pack("<HI", 0, length) if vr in LONG else struct.pack("<H", length)) + value


def implicit(tag, _vr, value=b"", length=None):
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(content, length=None):
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content) if length is None else length) + content


ITEM_END, SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def meta(syntax):
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    body = explicit(0x00020001, "OB", b"\0\1") + explicit(0x00020010, "UI", uid)
    return b"\0" * 128 + b"DICM" + explicit(0x00020000, "UL", struct.pack("<I", len(body))) + body


def body(element, nested=b"", pixel_bytes=32):
    """A small CT header with a private group, group lengths and a sequence behind the study."""
    short = struct.Struct("<H").pack
    return b"".join(
        [
            element(0x00080000, "UL", struct.pack("<I", 400)),
            element(0x00080005, "CS", b"ISO_IR 100"),
            element(0x00080008, "CS", b"ORIGINAL\\PRIMARY\\AXIAL "),
            element(0x00080016, "UI", CT.encode() + b"\0"),
            element(0x00080018, "UI", b"1.2.3.4\0"),
            element(0x00080070, "LO", b"MAKER "),
            nested,
            element(0x00090010, "LO", b"PRIVATE "),
            element(0x00091001, "OB", b"\1\2\3\4"),
            element(0x00100020, "LO", b"AB 12 "),
            element(0x00180050, "DS", b"1.25"),
            element(0x0020000D, "UI", b"1.2.3.5\0"),
            element(0x0020000E, "UI", b"1.2.3.6\0"),
            element(0x00200013, "IS", b"17  "),
            element(0x00200032, "DS", b"-1.5\\2.25\\1e2 "),
            element(0x00280002, "US", short(1)),
            element(0x00280010, "US", short(4)),
            element(0x00280103, "US", short(1)),
            element(0x00280120, "SS", struct.pack("<h", -2000)),
            element(0x7FE00010, "OW", b"\7" * pixel_bytes),
        ]
    )


def open_sequence(element, inner):
    return element(0x00081140, "SQ", inner + SEQUENCE_END, UNDEFINED)


def write(path, data):
    path.write_bytes(data)
    return path


def no_dicom(path):
    try:
        walk_tags(path)
    except Skip as skip:
        return skip.reason == Reason.NOT_DICOM
    return False


LEARNT = 6
"""So many times a file is walked before its runs are surely known."""


def again_and_again(path):
    """The walker's answer, which must not change with what it learns."""
    first = walk_tags(path)
    for _ in range(LEARNT):
        assert repr(first and [dict(first.values), *first]) == repr(
            (tags := walk_tags(path)) and [dict(tags.values), *tags]
        )
    return first


def same_as_pydicom(path):
    """The walker's answer, once it has been found to be pydicom's; None where it does not answer."""
    if no_dicom(path):
        with pytest.raises(Skip, match=Reason.NOT_DICOM):
            pydicom_tags(path)
        return None
    tags = again_and_again(path)
    if tags is not None:
        assert repr(dict(sorted(tags.values.items()))) == repr(
            dict(sorted(pydicom_tags(path).values.items()))
        )
        assert tags == pydicom_tags(path) or "nan" in repr(tags.values)
    return tags


def learn_from(folder, syntax, element):
    """Have the runs of an ordinary file be known."""
    assert again_and_again(write(folder / "ordinary", meta(syntax) + body(element))) is not None
    assert element_headers.encoding_of(
        explicit=element is explicit, writer="", media_class=""
    ).templates.known


ENCODINGS = [(EXPLICIT, explicit), (IMPLICIT, implicit)]
