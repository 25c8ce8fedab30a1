"""Values that are written as no standard asks: spacings, numbers of another VR, padded identifiers, words for yes."""

import struct

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.uid import ImplicitVRLittleEndian

from hilum.client.intake.headers.read_instance import NeedsPydicom, read_instance, read_with_pydicom, walk
from hilum.client.intake.reasons import Reason, Skip

STORAGE = "1.2.840.10008.5.1.4.1.1."
CR, DX, MG, CT, MR = (STORAGE + end for end in ("1", "1.1", "1.2", "2", "4"))
US, XA, SC, ENHANCED_CT = STORAGE + "6.1", STORAGE + "12.1", STORAGE + "7", STORAGE + "2.1"
RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 16
PIXEL_SPACING, IMAGER_SPACING = 0x0028_0030, 0x0018_1164


@pytest.fixture(autouse=True)
def written_as_it_is(monkeypatch):
    """No value is refused or warned of while a test writes it."""
    monkeypatch.setattr(pydicom.config.settings, "_writing_validation_mode", pydicom.config.IGNORE)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)


def outcome(read, path):
    try:
        return read(path)
    except Skip as skip:
        return skip.reason


def read(path):
    """The walker's answer, which must be pydicom's; pydicom's where the walker has none."""
    slow, fast = outcome(read_with_pydicom, path), outcome(walk, path)
    assert isinstance(fast, NeedsPydicom) or fast == slow
    assert outcome(read_instance, path) == slow
    return slow


def raw_value(path, tag, value, vr=b"DS"):
    """Put bytes where an explicit little endian file has an element of 16 bytes of value."""
    data = path.read_bytes()
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    at = data.index(head + b"DS\x10\0")
    value += b" " * (len(value) % 2)
    if vr in (b"UT", b"UN", b"OB"):
        new = head + vr + b"\0\0" + struct.pack("<I", len(value)) + value
    else:
        new = head + vr + struct.pack("<H", len(value)) + value
    path.write_bytes(data[:at] + new + data[at + 8 + 16 :])


PLACED = {
    "ImagePositionPatient": [1, 2, 3],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": ["0.70000", "0.800000"],
}
UNUSABLE = [
    b"0\\0", b"0.2\\0", b"-0.2\\-0.2", b"0,143\\0,143", b"0.2\\0.2\\0.2", b"0.2\\0\\0.2", b"0.2", b"nan\\nan", b"inf\\1",
    b"abc", b"0.2 mm\\0.2 mm", b"1e9\\1e9", b"1e400\\1", b"0.2\\", b"\\", b"0x1\\0x1",
]  # fmt: skip


@pytest.mark.parametrize("value", UNUSABLE)
@pytest.mark.parametrize("sop_class", [CR, DX, MG])
def test_a_radiograph_whose_spacing_can_not_be_used_is_taken_as_one_without(
    dicom, tmp_path, sop_class, value
):
    path = tmp_path / "a.dcm"
    dicom(path, RAMP, sop_class=sop_class, PixelSpacing=PLACED["PixelSpacing"])
    raw_value(path, PIXEL_SPACING, value)
    assert read(path).frames[0].spacing_mm is None


@pytest.mark.parametrize("value", UNUSABLE)
def test_the_detectors_spacing_stands_in_where_the_patients_can_not_be_used(dicom, tmp_path, value):
    path = tmp_path / "a.dcm"
    dicom(path, RAMP, PixelSpacing=PLACED["PixelSpacing"], ImagerPixelSpacing=[0.1, 0.2])
    raw_value(path, PIXEL_SPACING, value)
    assert read(path).frames[0].spacing_mm == (0.1, 0.2)


@pytest.mark.parametrize("value", [b"", b"0\\0", b"0,1\\0,1"])
def test_a_useless_detector_spacing_is_none(dicom, tmp_path, value):
    path = tmp_path / "a.dcm"
    dicom(path, RAMP, PixelSpacing=None, ImagerPixelSpacing=PLACED["PixelSpacing"])
    raw_value(path, IMAGER_SPACING, value)
    assert read(path).frames[0].spacing_mm is None


@pytest.mark.parametrize("value", [one for one in UNUSABLE if one != b"1e9\\1e9"])
@pytest.mark.parametrize("sop_class", [CT, MR])
def test_a_slice_whose_spacing_can_not_be_used_is_refused_for_that(dicom, tmp_path, sop_class, value):
    path = tmp_path / "a.dcm"
    dicom(path, RAMP, sop_class=sop_class, **PLACED)
    raw_value(path, PIXEL_SPACING, value)
    assert read(path) == Reason.MISSING_ATTRIBUTE


def test_a_slice_has_no_detector_whose_spacing_could_stand_in(dicom, tmp_path):
    dicom(
        tmp_path / "a.dcm", RAMP, sop_class=CT, **{**PLACED, "PixelSpacing": None}, ImagerPixelSpacing=[1, 1]
    )
    assert read(tmp_path / "a.dcm").frames[0].spacing_mm is None


@pytest.mark.parametrize("place", [{"ImagePositionPatient": [1, 2]}, {"ImageOrientationPatient": [1, 0, 0]}])
def test_a_broken_place_is_a_fault_of_slices_alone(dicom, tmp_path, place):
    dicom(tmp_path / "a.dcm", RAMP, sop_class=CT, **{**PLACED, **place})
    assert read(tmp_path / "a.dcm") == Reason.MISSING_ATTRIBUTE
    dicom(tmp_path / "a.dcm", RAMP, **{**PLACED, **place})
    found = read(tmp_path / "a.dcm").frames[0]
    assert (found.position_mm, found.orientation) == (None, None)


@pytest.mark.parametrize("vr", [b"UT", b"LO", b"UN", b"SH", b"CS", b"ST", b"OB", b"IS"])
@pytest.mark.parametrize("sop_class", [CR, MR])
def test_a_plain_spacing_is_read_whatever_its_vr(dicom, tmp_path, sop_class, vr):
    path = tmp_path / "a.dcm"
    dicom(path, RAMP, sop_class=sop_class, **PLACED)
    raw_value(path, PIXEL_SPACING, b" 2.5000\\1.5000 \0", vr)
    assert read(path).frames[0].spacing_mm == (2.5, 1.5)


@pytest.mark.parametrize("vr", ["FD", "FL"])
def test_a_spacing_of_binary_numbers_is_read(dicom, tmp_path, vr):
    rewritten(dicom, tmp_path / "a.dcm", {"PixelSpacing": (vr, [2.5, 1.5])})
    assert read(tmp_path / "a.dcm").frames[0].spacing_mm == (2.5, 1.5)


def rewritten(dicom, path, elements):
    """An MR slice with elements of other VRs, by keyword."""
    dicom(path, RAMP, sop_class=MR, **PLACED)
    dataset = pydicom.dcmread(path)
    for keyword, (vr, value) in elements.items():
        tag = pydicom.datadict.tag_for_keyword(keyword)
        dataset[tag] = DataElement(tag, vr, value)
    dataset.save_as(path)


def test_places_and_what_tells_slices_apart_are_read_whatever_their_vr(dicom, tmp_path):
    rewritten(
        dicom,
        tmp_path / "a.dcm",
        {
            "ImagePositionPatient": ("UT", "-1.5\\2\\3.25"),
            "ImageOrientationPatient": ("LO", ["1", "0", "0", "0", "0", "-1"]),
            "EchoTime": ("FD", 4.9),
            "RepetitionTime": ("LO", "500"),
            "EchoNumbers": ("LO", "2"),
            "AcquisitionNumber": ("DS", "3"),
            "InstanceNumber": ("UT", " 7 "),
            "TemporalPositionIdentifier": ("US", 4),
            "SliceThickness": ("UT", "2.5"),
        },
    )
    frame = read(tmp_path / "a.dcm").frames[0]
    assert frame.position_mm == (-1.5, 2.0, 3.25)
    assert frame.orientation == (1, 0, 0, 0, 0, -1)
    assert frame.thickness_mm == 2.5
    found = frame.contrast
    assert (found.echo_time_ms, found.repetition_time_ms, found.echo_number) == (4.9, 500.0, 2)
    assert (found.acquisition_number, found.instance_number, found.temporal_position) == (3, 7, 4.0)


def test_what_tells_ct_exposures_apart_is_read_and_not_of_other_images(dicom, tmp_path):
    said = {"KVP": "80", "ConvolutionKernel": "B30f ", "ContrastBolusAgent": " AGENT"}
    dicom(tmp_path / "a.dcm", RAMP, sop_class=CT, **PLACED, **said)
    found = read(tmp_path / "a.dcm").frames[0].contrast
    assert (found.kvp_kv, found.kernel, found.contrast_agent) == (80.0, "B30f", "AGENT")
    dicom(tmp_path / "a.dcm", RAMP, **said)
    found = read(tmp_path / "a.dcm").frames[0].contrast
    assert (found.kvp_kv, found.kernel, found.contrast_agent) == (None, "", "")


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_padding_is_no_part_of_an_identifier_and_case_is(dicom, tmp_path, syntax):
    more = {} if syntax is None else {"syntax": syntax}
    found = set()
    for number, text in enumerate(
        (b"ABC12   ", b"ABC12\0\0\0", b" ABC12  ", b"  \0ABC12", b"ABC12 \0 ", b"\tABC12 \r")
    ):
        path = tmp_path / f"{number}.dcm"
        dicom(path, RAMP, PatientID="ABCDEFGH", **more)
        data = path.read_bytes()
        assert data.count(b"ABCDEFGH") == 1
        path.write_bytes(data.replace(b"ABCDEFGH", text))
        found.add(read(path).patient_id)
    assert found == {"ABC12"}
    dicom(tmp_path / "a.dcm", RAMP, PatientID="abc12", **more)
    assert read(tmp_path / "a.dcm").patient_id == "abc12"
    dicom(tmp_path / "a.dcm", RAMP, PatientID="ABC 12", **more)
    assert read(tmp_path / "a.dcm").patient_id == "ABC 12"


@pytest.mark.parametrize(
    ("text", "vrs"), [("0012", ("LO", "IS", "DS", "PN", "SH", "UT")), ("A^B", ("LO", "PN"))]
)
def test_an_identifier_is_as_it_stands_whatever_its_vr(dicom, tmp_path, text, vrs):
    for vr in vrs:
        dicom(tmp_path / "a.dcm", RAMP, PatientID=text)
        changed = pydicom.dcmread(tmp_path / "a.dcm")
        changed[0x00100020] = pydicom.DataElement(0x00100020, vr, text)
        changed.save_as(tmp_path / "a.dcm")
        assert read(tmp_path / "a.dcm").patient_id == text, vr


def test_one_name_is_one_patient_however_its_letters_are_composed(dicom, tmp_path):
    for text in ("M\u00fcller", "Mu\u0308ller"):
        dicom(tmp_path / "a.dcm", RAMP, PatientID=text, SpecificCharacterSet="ISO_IR 192")
        assert read(tmp_path / "a.dcm").patient_id == "M\u00fcller"


@pytest.mark.parametrize("sop_class", [CT, MR, DX])
def test_a_window_that_is_no_number_is_none(dicom, tmp_path, sop_class):
    dicom(tmp_path / "a.dcm", RAMP, sop_class=sop_class, WindowWidth=400)
    changed = pydicom.dcmread(tmp_path / "a.dcm")
    changed.add_new(0x00281050, "LO", "40,5")
    changed.save_as(tmp_path / "a.dcm")
    assert read(tmp_path / "a.dcm").frames[0].window is None


@pytest.mark.parametrize(("vr", "value"), [("DS", "-2000"), ("LO", "-2000"), ("SS", [-2000, -2000])])
def test_a_padding_value_counts_in_any_vr(dicom, tmp_path, vr, value):
    dicom(tmp_path / "a.dcm", RAMP, sop_class=CT)
    changed = pydicom.dcmread(tmp_path / "a.dcm")
    changed.add_new(0x00280120, vr, value)
    changed.save_as(tmp_path / "a.dcm")
    assert read(tmp_path / "a.dcm").padding == (-2000, -2000)


@pytest.mark.parametrize(("vr", "value"), [("SS", [-2000, 0]), ("LO", "none")])
def test_padding_that_nobody_can_know_refuses_a_slice(dicom, tmp_path, vr, value):
    for sop_class, is_slice in ((CT, True), (DX, False)):
        dicom(tmp_path / "a.dcm", RAMP, sop_class=sop_class)
        changed = pydicom.dcmread(tmp_path / "a.dcm")
        changed.add_new(0x00280120, vr, value)
        changed.save_as(tmp_path / "a.dcm")
        found = read(tmp_path / "a.dcm")
        assert found == Reason.UNSUPPORTED_PIXELS if is_slice else found.padding is None


@pytest.mark.parametrize("text", ["   ", "\0\0", " \0 \0"])
def test_a_patient_id_of_padding_alone_is_none(dicom, tmp_path, text):
    written = dicom(tmp_path / "a.dcm", RAMP, PatientID=text)
    assert read(tmp_path / "a.dcm").patient_id == written.StudyInstanceUID


def test_padding_is_no_part_of_a_uid(dicom, tmp_path):
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
    uids["FrameOfReferenceUID"] = "1.2.3.6"
    dicom(tmp_path / "a.dcm", RAMP, **{name: f" {uid}\0 " for name, uid in uids.items()})
    found = read(tmp_path / "a.dcm")
    assert [found.study_uid, found.series_uid, found.sop_uid, found.frame_of_reference] == list(uids.values())


@pytest.mark.parametrize("sop_class", [CR, DX, MG, CT, MR, US, XA, SC])
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("YES", True), ("yes", True), (" YES ", True), ("Y", True), ("Yes\0", True), ("TRUE", True), ("1", True),
        ("NO", False), ("no ", False), ("N", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_burned_in_text_is_told_by_any_word_but_a_plain_no(dicom, tmp_path, sop_class, word, said):
    dicom(tmp_path / "a.dcm", RAMP.astype(np.uint8), sop_class=sop_class, **PLACED, BurnedInAnnotation=word)
    assert read(tmp_path / "a.dcm").burned_in is said


@pytest.mark.parametrize("word", ["MOSAIC", "VFRAME", "vframe "])
def test_a_mosaic_that_is_not_understood_is_told_as_one_whoever_made_it(dicom, tmp_path, word):
    dicom(tmp_path / "a.dcm", RAMP, sop_class=MR, ImageType=["ORIGINAL", "PRIMARY", "M", word])
    assert read(tmp_path / "a.dcm") == Reason.UNSUPPORTED_MOSAIC
