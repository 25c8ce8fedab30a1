"""Which pixel formats a header may state, so that what is read comes out right."""

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from header_reads import MR, RAMP, SC, both_ways, replace_syntax
from hilum.client.intake.headers.read_instance import NeedsPydicom, walk
from hilum.client.intake.pixels.images import read_stored
from hilum.client.intake.reasons import Reason
from pixel_files import (
    BIG,
    DEFLATED,
    ENCAPSULATED_NATIVE,
    J2K_LOSSLESS,
    JPEGLS,
    LOSSLESS,
    write_any,
    write_encoded,
    write_floats,
    write_native,
)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DEFLATED, BIG])
@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "float"), (np.float64, "double")])
def test_float_pixels_need_no_bits_stored_and_are_known_from_their_element(tmp_path, syntax, dtype, kind):
    values = RAMP.astype(dtype) / 3
    written = write_floats(tmp_path / "a.dcm", values[None], syntax, SOPClassUID=MR)
    found = both_ways(tmp_path / "a.dcm")
    assert isinstance(walk(tmp_path / "a.dcm"), NeedsPydicom) == (syntax in {DEFLATED, BIG})
    assert found.pixels == written.pixels
    assert (found.pixels.kind, found.pixels.bits_stored) == (kind, 8 * values.itemsize)
    [stored] = read_stored(tmp_path / "a.dcm", found, [0])
    assert np.array_equal(stored, values)


@pytest.mark.parametrize(
    ("syntax", "attributes"),
    [
        (ImplicitVRLittleEndian, {"BitsStored": 12, "HighBit": 15}),
        (ExplicitVRLittleEndian, {"BitsStored": 10, "HighBit": 12}),
        (DEFLATED, {"BitsStored": 12, "HighBit": 13}),
        (BIG, {"BitsStored": 12, "HighBit": 15}),
        (RLELossless, {"BitsStored": 12, "HighBit": 15}),
        (ENCAPSULATED_NATIVE, {"BitsStored": 12, "HighBit": 15}),
    ],
)
def test_a_sample_may_lie_anywhere_in_what_is_not_compressed_by_value(tmp_path, syntax, attributes):
    bits, top = attributes["BitsStored"], attributes["HighBit"] + 1
    values = np.random.default_rng(0).integers(0, 1 << bits, (1, 9, 7)).astype(np.uint16)
    noise = np.random.default_rng(1).integers(0, 1 << 16, (1, 9, 7)).astype(np.uint16)
    mask = ((1 << bits) - 1) << (top - bits)
    cells = (values << (top - bits) | noise & ~np.uint16(mask)).astype(np.uint16)
    if syntax == ENCAPSULATED_NATIVE:
        write_encoded(
            tmp_path / "a.dcm", cells, syntax, streams=[cells.tobytes()], SOPClassUID=MR, **attributes
        )
    else:
        write_any(tmp_path / "a.dcm", cells, syntax, SOPClassUID=MR, **attributes)
    [stored] = read_stored(tmp_path / "a.dcm", both_ways(tmp_path / "a.dcm"), [0])
    assert np.array_equal(stored, values[0])


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DEFLATED, RLELossless, J2K_LOSSLESS]
)
def test_32_bits_are_read_where_the_syntax_holds_them(tmp_path, syntax):
    values = (np.arange(63, dtype=np.uint32).reshape(1, 9, 7) * 4001 + 70_000).astype(np.uint32)
    write_any(tmp_path / "a.dcm", values, syntax, SOPClassUID=MR, BitsStored=24)
    [stored] = read_stored(tmp_path / "a.dcm", both_ways(tmp_path / "a.dcm"), [0])
    assert np.array_equal(stored, values[0])


def float_file(path, *, syntax=ExplicitVRLittleEndian, **attributes):
    write_floats(path, RAMP.astype(np.float32)[None], ExplicitVRLittleEndian, SOPClassUID=MR, **attributes)
    if syntax != ExplicitVRLittleEndian:
        replace_syntax(path, syntax)


def whole_file(path, *, dtype=np.uint32, syntax=ExplicitVRLittleEndian, **attributes):
    write_native(path, RAMP.astype(dtype)[None], ExplicitVRLittleEndian, SOPClassUID=SC, **attributes)
    if syntax != ExplicitVRLittleEndian:
        replace_syntax(path, syntax)


@pytest.mark.parametrize(
    ("write", "attributes"),
    [
        (float_file, {"BitsAllocated": 64}),
        (float_file, {"BitsAllocated": 16}),
        (float_file, {"PhotometricInterpretation": "PALETTE COLOR"}),
        (float_file, {"syntax": RLELossless}),
        (float_file, {"syntax": ENCAPSULATED_NATIVE}),
        (whole_file, {"PhotometricInterpretation": "PALETTE COLOR"}),
        (whole_file, {"syntax": JPEGLS}),
        (whole_file, {"syntax": LOSSLESS}),
        (whole_file, {"BitsAllocated": 64, "BitsStored": 64}),
        (whole_file, {"BitsAllocated": 24, "BitsStored": 24}),
        (whole_file, {"BitsStored": 16, "HighBit": 32}),
        (whole_file, {"BitsStored": 16, "HighBit": 14}),
        (whole_file, {"dtype": np.uint16, "syntax": JPEGLS, "BitsStored": 12, "HighBit": 15}),
        (whole_file, {"dtype": np.uint16, "syntax": J2K_LOSSLESS, "BitsStored": 12, "HighBit": 15}),
    ],
)
def test_a_pixel_format_that_can_not_be_read_right_is_refused(tmp_path, write, attributes):
    write(tmp_path / "a.dcm", **attributes)
    assert both_ways(tmp_path / "a.dcm")[0] == Reason.UNSUPPORTED_PIXELS


def test_32_bits_in_big_endian_are_refused_for_writers_disagree_on_their_order(tmp_path):
    write_native(tmp_path / "a.dcm", RAMP.astype(np.uint32)[None], BIG, SOPClassUID=MR)
    assert both_ways(tmp_path / "a.dcm")[0] == Reason.UNSUPPORTED_PIXELS
