"""The tag walker gives what pydicom gives, and reads no more than it has to."""

import os

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from hilum.client.intake.headers import element_headers, sequences, walker
from hilum.client.intake.headers.pet_tags import NOTED_OF_PET, OF_INJECTION, TAKEN_OF_PET
from hilum.client.intake.headers.tags import PixelElement
from hilum.client.intake.headers.walker import walk_tags
from hilum.client.intake.reasons import Reason, Skip
from walked_files import (
    ENCODINGS,
    EXPLICIT,
    ITEM_END,
    UNDEFINED,
    body,
    explicit,
    item,
    learn_from,
    meta,
    open_sequence,
    same_as_pydicom,
    write,
)


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
    taken, noted = {**TAKEN_OF_PET, **OF_INJECTION}, NOTED_OF_PET
    for tag, (keyword, vr) in taken.items():
        if tag >> 16 & 1:
            known = (
                pydicom.datadict.private_dictionary_VR(tag, "Philips PET Private Group")
                if tag & 0xFF00
                else "LO"
            )
            assert known == vr
        else:
            assert pydicom.datadict.keyword_for_tag(tag) == keyword
            assert pydicom.datadict.dictionary_VR(tag) == vr
    assert all(pydicom.datadict.keyword_for_tag(tag) == keyword for tag, keyword in noted.items())
    names = [*(keyword for keyword, _ in taken.values()), *noted.values()]
    assert len(set(names)) == len(names)
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
