"""In which transfer syntaxes a header is read, and how: sniffed, walked, inflated, or not at all."""

import tracemalloc
import zlib

import numpy as np
import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from header_reads import CT, RAMP, SR, both_ways, replace_syntax
from hilum.client.intake.headers.read_instance import NeedsPydicom, walk
from hilum.client.intake.pixels.images import read_stored
from hilum.client.intake.reasons import Reason
from hilum.client.intake.transfer_syntaxes import EXPLICIT_LITTLE_HEADERS, SUPPORTED_SYNTAXES


def test_a_header_without_preamble_is_sniffed(dicom, tmp_path):
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        dicom(tmp_path / "a.dcm", RAMP, syntax=syntax)
        data = (tmp_path / "a.dcm").read_bytes()
        (tmp_path / "b.dcm").write_bytes(data[data.index(b"\x08\0\x08\0") :])
        assert isinstance(walk(tmp_path / "b.dcm"), NeedsPydicom)
        assert both_ways(tmp_path / "b.dcm").pixels.syntax == syntax
        (tmp_path / "b.dcm").write_bytes(data[132:])
        assert both_ways(tmp_path / "b.dcm").pixels.syntax == syntax


@pytest.mark.parametrize("syntax", sorted(EXPLICIT_LITTLE_HEADERS - {ExplicitVRLittleEndian}))
def test_every_encapsulated_syntax_that_is_read_has_a_header_that_is_walked(dicom, tmp_path, syntax):
    dicom(tmp_path / "a.dcm", RAMP)
    replace_syntax(tmp_path / "a.dcm", syntax)
    assert walk(tmp_path / "a.dcm").pixels.syntax == both_ways(tmp_path / "a.dcm").pixels.syntax == syntax


def test_every_syntax_that_is_read_is_one():
    assert all(UID(syntax).is_transfer_syntax for syntax in SUPPORTED_SYNTAXES)


@pytest.mark.parametrize(
    ("sop_class", "reason"),
    [(CT, Reason.UNSUPPORTED_SYNTAX), (SR, Reason.NOT_AN_IMAGE), ("1.2.3", Reason.OTHER_MODALITY)],
)
def test_another_syntax_is_named_unless_the_object_is_no_image(dicom, tmp_path, sop_class, reason):
    dicom(tmp_path / "a.dcm", RAMP, sop_class=sop_class)
    replace_syntax(tmp_path / "a.dcm", "1.2.840.10008.1.2.4.100")
    assert both_ways(tmp_path / "a.dcm")[0] == reason


@pytest.fixture
def deflated(dicom, tmp_path):
    """Write a deflated file: an image, or so many zeros."""

    def write(zeros=0, **attributes):
        path = tmp_path / "a.dcm"
        written = dicom(path, RAMP, **attributes)
        replace_syntax(path, DeflatedExplicitVRLittleEndian)
        data = path.read_bytes()
        end = data.index(b"\x08\0\x08\0CS")
        engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = engine.compress(b"\0" * zeros or data[end:]) + engine.flush()
        path.write_bytes(data[:end] + packed)
        return path, written

    return write


def test_a_deflated_image_is_read(deflated):
    path, written = deflated(sop_class=CT)
    found = both_ways(path)
    assert isinstance(walk(path), NeedsPydicom)
    assert (found.sop_uid, found.pixels.syntax) == (written.SOPInstanceUID, DeflatedExplicitVRLittleEndian)
    [stored] = read_stored(path, found, [0])
    assert np.array_equal(stored, RAMP)


def test_a_deflated_bomb_is_inflated_no_further_than_its_bound(deflated):
    path, _written = deflated(zeros=300_000_000, sop_class=CT)
    tracemalloc.start()
    assert both_ways(path)[0] == Reason.IMPLAUSIBLE_SIZE
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()


def test_a_deflated_report_is_not_inflated_at_all(deflated, monkeypatch):
    path, _written = deflated(zeros=1_000_000, sop_class=SR)
    monkeypatch.setattr(zlib, "decompressobj", lambda *_: pytest.fail("inflated"))
    assert both_ways(path)[0] == Reason.NOT_AN_IMAGE
