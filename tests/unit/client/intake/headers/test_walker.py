"""The tag walker gives what pydicom gives, or says that it is not sure."""

import os
import struct

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from hilum.client.intake.headers import element_headers, sequences, walker
from hilum.client.intake.headers.pydicom_tags import pydicom_tags
from hilum.client.intake.headers.read_instance import read_tags
from hilum.client.intake.headers.tags import KEYWORDS, NOTED, TAKEN, PixelElement
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


@pytest.fixture(autouse=True)
def nothing_learnt():
    element_headers.encoding_of.cache_clear()


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


@pytest.mark.parametrize(("syntax", "element"), ENCODINGS)
def test_hand_made_bytes_give_the_values_that_were_put_in(tmp_path, syntax, element):
    path = write(tmp_path / "a", meta(syntax) + body(element))
    tags = same_as_pydicom(path)
    assert tags.get("ImageType") == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert tags.get("SOPInstanceUID") == "1.2.3.4"
    assert tags.get("Manufacturer") == "MAKER"
    assert tags.get("PatientID") == "AB 12"
    assert tags.get("SliceThickness") == 1.25
    assert tags.get("InstanceNumber") == 17
    assert tags.get("ImagePositionPatient") == (-1.5, 2.25, 100.0)
    assert tags.get("Rows") == 4
    assert tags.get("PixelPaddingValue") == -2000
    assert tags.get("Columns") is None
    assert (tags.syntax, tags.size_bytes) == (syntax, path.stat().st_size)
    data = path.read_bytes()
    assert tags.pixels == PixelElement("OW", data.index(b"\7" * 32), 32)


@pytest.mark.parametrize(("syntax", "element"), ENCODINGS)
@pytest.mark.parametrize("open_item", [True, False])
def test_nested_sequences_of_undefined_length_are_passed(tmp_path, syntax, element, open_item):
    decoy = element(0x00080018, "UI", b"9.9\0") + element(0x00280010, "US", b"\x63\0")
    deep = decoy + open_sequence(element, item(decoy))
    inner = item(deep + ITEM_END, UNDEFINED) if open_item else item(deep)
    path = write(tmp_path / "a", meta(syntax) + body(element, open_sequence(element, inner + item(b""))))
    tags = same_as_pydicom(path)
    assert (tags.get("SOPInstanceUID"), tags.get("Rows")) == ("1.2.3.4", 4)


@pytest.mark.parametrize(("syntax", "element"), ENCODINGS)
def test_a_sequence_longer_than_the_window_is_passed(tmp_path, syntax, element):
    inner = item(element(0x00081150, "UI", b"1.2.840\0") * 200) * 30
    path = write(tmp_path / "a", meta(syntax) + body(element, open_sequence(element, inner)))
    assert path.stat().st_size > 5 * walker.WINDOW_BYTES
    assert same_as_pydicom(path).get("Rows") == 4


@pytest.mark.parametrize(("syntax", "element"), ENCODINGS)
@pytest.mark.parametrize("extra", range(0, 260, 2))
def test_a_window_may_end_anywhere_in_an_element(tmp_path, syntax, element, extra):
    learn_from(tmp_path, syntax, element)
    filler = element(0x00081140, "UT", b"x" * (walker.WINDOW_BYTES - 500 + 2 * extra))
    tags = same_as_pydicom(write(tmp_path / "a", meta(syntax) + body(element, filler)))
    assert tags.get("Rows") == 4


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


def test_a_header_of_endless_private_elements_takes_bounded_reads(tmp_path, monkeypatch):
    long = explicit(0x00091001, "OB", b"\0" * 20_000)
    path = write(tmp_path / "a", meta(EXPLICIT) + body(explicit, long * 300))
    reads = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *words: reads.append(words[1]) or pread(*words))
    assert walk_tags(path) is None
    assert len(reads) <= 256
    assert max(reads) <= 1 << 20


def test_what_is_no_dicom_or_no_file_is_said_at_once(tmp_path):
    for path, reason in [
        (write(tmp_path / "text", b"hello"), Reason.NOT_DICOM),
        (write(tmp_path / "empty", b""), Reason.NOT_DICOM),
        (tmp_path / "absent", Reason.UNREADABLE),
        (tmp_path, Reason.UNREADABLE),
    ]:
        with pytest.raises(Skip) as caught:
            walk_tags(path)
        assert caught.value.reason == reason


def test_the_tables_agree_with_pydicoms_dictionary():
    for tag, (keyword, vr) in TAKEN.items():
        assert (pydicom.datadict.keyword_for_tag(tag), pydicom.datadict.dictionary_VR(tag)) == (keyword, vr)
    assert all(pydicom.datadict.keyword_for_tag(tag) == keyword for tag, keyword in NOTED.items())
    assert len(set(KEYWORDS)) == len(KEYWORDS)
    assert {vr.value for vr in EXPLICIT_VR_LENGTH_32} == element_headers.LONG_VRS
    assert {vr.value for vr in EXPLICIT_VR_LENGTH_16} == element_headers.SHORT_VRS


def test_the_tags_show_no_identifier(tmp_path):
    tags = walk_tags(write(tmp_path / "a", meta(EXPLICIT) + body(explicit)))
    assert "1.2.3.4" not in repr(tags)
    assert "AB 12" not in str(tags)


def test_the_memory_of_heads_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(element_headers, "_MAX_HEADS", 50)
    for number in range(1, 200):
        filler = explicit(0x00091001, "LO", b"x" * 2 * number)
        path = write(tmp_path / "a", meta(EXPLICIT) + body(explicit, filler))
        assert walk_tags(path).get("Rows") == 4
        assert len(element_headers.EXPLICIT) <= 50


text = st.text("ABCxyz 019_^-", max_size=16)
number = st.floats(-1e6, 1e6).map(lambda value: f"{value:.6g}")
BY_VR = {
    "CS": st.lists(st.text("ABC 1_", max_size=8), max_size=4),
    "UI": st.just(None).map(lambda _: generate_uid()),
    "LO": text,
    "SH": text,
    "TM": st.sampled_from(["", "120102", "23", "010203.45"]),
    "DS": st.lists(number, max_size=6),
    "IS": st.lists(st.integers(-(2**31) + 1, 2**31 - 1), max_size=3),
    "US": st.integers(0, 65535),
    "FD": st.lists(st.floats(allow_nan=False), max_size=3),
}


@st.composite
def datasets(draw):
    dataset = Dataset()
    for tag in draw(st.lists(st.sampled_from(sorted(TAKEN)), unique=True)):
        keyword, vr = TAKEN[tag]
        if keyword == "SpecificCharacterSet":
            value = draw(
                st.sampled_from(["", "ISO_IR 100", "ISO_IR 192", ["ISO 2022 IR 6", "ISO 2022 IR 87"]])
            )
        elif " or " in vr:
            dataset.PixelRepresentation = draw(st.integers(0, 1))
            low = -32768 if dataset.PixelRepresentation else 0
            value = draw(st.integers(low, low + 65535))
            vr = "SS" if dataset.PixelRepresentation else "US"
        elif keyword == "PixelRepresentation":
            continue
        else:
            value = draw(BY_VR[vr])
        dataset.add_new(tag, vr, value)
    for creator in draw(st.lists(st.sampled_from(["MAKER A", "MAKER B"]), unique=True)):
        block = dataset.private_block(0x0029, creator, create=True)
        block.add_new(1, "OB", draw(st.binary(max_size=40)) * draw(st.sampled_from([1, 1000])))
        block.add_new(2, "LO", draw(text))
    for name in draw(
        st.lists(st.sampled_from(["ReferencedStudySequence", "ModalityLUTSequence"]), unique=True)
    ):
        one = Dataset()
        one.ReferencedSOPInstanceUID = generate_uid()
        one.Rows = 99
        two = Dataset()
        two.ReferencedImageSequence = Sequence([one])
        two["ReferencedImageSequence"].is_undefined_length = draw(st.booleans())
        two.is_undefined_length_sequence_item = draw(st.booleans())
        setattr(dataset, name, Sequence([two, one]))
        dataset[name].is_undefined_length = draw(st.booleans())
    if draw(st.booleans()):
        dataset.BitsAllocated, dataset.PixelData = 16, b"\0" * 2 * draw(st.integers(0, 50))
        dataset["PixelData"].VR = "OW"
    return dataset


@settings(deadline=None, max_examples=250, suppress_health_check=list(HealthCheck))
@given(dataset=datasets(), syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
def test_walker_and_pydicom_agree_on_any_valid_data_set(tmp_path_factory, dataset, syntax):
    path = tmp_path_factory.getbasetemp() / "valid.dcm"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    with pydicom.config.disable_value_validation():
        pydicom.dcmwrite(path, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    same_as_pydicom(path)


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


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless])
def test_files_as_they_are_written_every_day_need_no_pydicom(dicom, tmp_path, syntax):
    dicom(tmp_path / "a.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8), syntax=syntax)
    tags = same_as_pydicom(tmp_path / "a.dcm")
    assert tags.get("Columns") == 8
    assert tags.pixels.size_bytes == (None if syntax == RLELossless else 128)


def test_a_sequence_longer_than_any_run_is_not_walked_to_its_end_to_learn_it(tmp_path, monkeypatch):
    steps = []
    step = sequences._step
    monkeypatch.setattr(sequences, "_step", lambda *words: steps.append(1) or step(*words))
    long = open_sequence(
        explicit, item(explicit(0x00081150, "UI", b"1.2.840\0") * 5_000 + ITEM_END, UNDEFINED)
    )
    path = write(tmp_path / "a", meta(EXPLICIT) + body(explicit, open_sequence(explicit, item(long * 9))))
    assert same_as_pydicom(path).get("Rows") == 4
    assert len(steps) < 5_000  # those of one sequence alone
