"""What a file's header becomes: an instance, or a reason; the same whichever way the header was read."""

import tracemalloc
import zlib

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from hilum.client.intake.headers.header_values import seconds
from hilum.client.intake.headers.read_instance import NeedsPydicom, read_instance, read_with_pydicom, walk
from hilum.client.intake.headers.sop_classes import SOP_CLASSES
from hilum.client.intake.instance import Region
from hilum.client.intake.pixels.images import read_stored
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import EXPLICIT_LITTLE_HEADERS, SUPPORTED_SYNTAXES
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

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, MR, SR = STORAGE + "2", STORAGE + "4", STORAGE + "88.33"
US, ENHANCED_MR, SC = STORAGE + "6.1", STORAGE + "4.1", STORAGE + "7"
RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 16


def outcome(read, path):
    try:
        return read(path)
    except Skip as skip:
        return skip.reason, skip.uids


def both_ways(path):
    """The walker's answer, which must be pydicom's; pydicom's where the walker has none."""
    slow, fast = outcome(read_with_pydicom, path), outcome(walk, path)
    assert isinstance(fast, NeedsPydicom) or fast == slow
    assert outcome(read_instance, path) == slow
    return slow


def replace_syntax(path, new):
    """Rewrite the transfer syntax of an explicit little endian file, and nothing else."""

    def element(uid):
        value = uid.encode() + b"\0" * (len(uid) % 2)
        return b"\x02\0\x10\0UI" + len(value).to_bytes(2, "little") + value

    data = path.read_bytes()
    assert data.count(element(ExplicitVRLittleEndian)) == 1
    path.write_bytes(data.replace(element(ExplicitVRLittleEndian), element(new)))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("sop_class", [CT, MR, STORAGE + "1"])
def test_every_fact_is_the_file_s(dicom, tmp_path, syntax, dtype, sop_class):
    path = tmp_path / "a.dcm"
    written = dicom(
        path, RAMP.astype(dtype), syntax=syntax, sop_class=sop_class, PixelSpacing=[0.5, 0.25], RescaleSlope="2.5",
        ImagePositionPatient=[-10, 20.5, "1e2"], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], RescaleIntercept=-1024,
        WindowCenter=[40, 400], WindowWidth=[80, 2000], PixelPaddingValue=5, PixelPaddingRangeLimit=2,
        PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    found = both_ways(path)
    [frame] = found.frames
    assert not isinstance(walk(path), NeedsPydicom)
    uids = (written.SOPInstanceUID, written.SeriesInstanceUID, written.StudyInstanceUID)
    assert (found.sop_uid, found.series_uid, found.study_uid, found.patient_id) == (*uids, "ZZPHI-ID")
    assert found.family == {CT: "ct", MR: "mr"}.get(sop_class, "radiograph")
    assert (found.inverted, found.padding, found.localizer) == (True, (2, 5), False)
    assert (frame.slope, frame.intercept, frame.spacing_mm) == (2.5, -1024, (0.5, 0.25))
    assert (frame.position_mm, frame.orientation) == ((-10, 20.5, 100), (1, 0, 0, 0, 1, 0))
    assert (found.pixels.rows, found.pixels.columns, found.pixels.signed) == (8, 8, dtype == np.int16)
    assert (frame.window.center, frame.window.width, frame.window.function) == (40, 80, "LINEAR")
    assert found.pixels.syntax == syntax


def test_what_tells_frames_apart_is_taken(dicom, tmp_path):
    dicom(
        tmp_path / "a.dcm", RAMP, sop_class=MR, Manufacturer="MAKER ", ImageType=["ORIGINAL", "PRIMARY", "P", "ND"],
        EchoNumbers=2, EchoTime="4.5", RepetitionTime=500, InversionTime=None, FlipAngle=30, InstanceNumber=9,
        AcquisitionNumber=3, AcquisitionTime="010203.5", TriggerTime=12, TemporalPositionIdentifier=4,
        DiffusionBValue=1000.0, DiffusionGradientOrientation=[0.0, 0.6, 0.8], ReceiveCoilName="HEAD",
        FrameOfReferenceUID="1.2.3", SliceThickness="2.5",
    )  # fmt: skip
    found = both_ways(tmp_path / "a.dcm")
    contrast = found.frames[0].contrast
    assert (contrast.vendor, contrast.component, contrast.coil) == ("MAKER", "P", "HEAD")
    assert contrast.image_type == found.image_type == ("ORIGINAL", "PRIMARY", "P", "ND")
    assert (contrast.echo_number, contrast.echo_time_ms, contrast.repetition_time_ms) == (2, 4.5, 500)
    assert (contrast.inversion_time_ms, contrast.flip_angle_deg) == (None, 30)
    assert (contrast.b_value, contrast.gradient) == (1000, (0, 0.6, 0.8))
    assert (contrast.temporal_position, contrast.trigger_time_ms) == (4, 12)
    assert (contrast.acquisition_number, contrast.instance_number) == (3, 9)
    assert contrast.acquisition_time_s == 3723.5
    assert (found.frame_of_reference, found.frames[0].thickness_mm) == ("1.2.3", 2.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("235959.25", 86399.25), ("12", 43200), ("01:02:03", 3723), ("", None), ("noon", None), (None, None)],
)
def test_times_become_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"sop_class": STORAGE + "20"}, Reason.OTHER_MODALITY),
        ({"sop_class": STORAGE + "481.2"}, Reason.OTHER_MODALITY),
        ({"sop_class": "1.2.3.4"}, Reason.OTHER_MODALITY),
        ({"sop_class": SR}, Reason.NOT_AN_IMAGE),
        ({"sop_class": "1.2.3.4", "Rows": None}, Reason.NOT_AN_IMAGE),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.UNSUPPORTED_PIXELS),
        ({"NumberOfFrames": 2}, Reason.UNSUPPORTED_PIXELS),
        ({"sop_class": SC, "NumberOfFrames": -1}, Reason.UNSUPPORTED_PIXELS),
        ({"BitsStored": 17}, Reason.UNSUPPORTED_PIXELS),
        ({"HighBit": 3}, Reason.UNSUPPORTED_PIXELS),
        ({"PixelRepresentation": None}, Reason.MISSING_ATTRIBUTE),
        ({"Columns": None}, Reason.MISSING_ATTRIBUTE),
        ({"Rows": 0}, Reason.IMPLAUSIBLE_SIZE),
        ({"Rows": 60_000}, Reason.IMPLAUSIBLE_SIZE),
        ({"Rows": 9_000}, Reason.TRUNCATED_PIXELS),
        ({"sop_class": SC, "NumberOfFrames": 60_000}, Reason.TRUNCATED_PIXELS),
        ({"sop_class": SC, "NumberOfFrames": 2**31 - 2}, Reason.IMPLAUSIBLE_SIZE),
        ({"SeriesInstanceUID": None}, Reason.MISSING_ATTRIBUTE),
        ({"RescaleSlope": 0}, Reason.MISSING_ATTRIBUTE),
        ({"sop_class": CT, "PixelSpacing": [0, 1]}, Reason.MISSING_ATTRIBUTE),
        ({"sop_class": CT, "ImagePositionPatient": [1, 2]}, Reason.MISSING_ATTRIBUTE),
    ],
)
def test_what_is_not_taken_has_a_reason_and_its_uids(dicom, tmp_path, attributes, reason):
    written = dicom(tmp_path / "a.dcm", RAMP, **attributes)
    found, uids = both_ways(tmp_path / "a.dcm")
    assert found == reason
    assert uids[0] == written.SOPInstanceUID


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


def test_truncated_pixels_are_seen_before_they_are_decoded(dicom, tmp_path):
    dicom(tmp_path / "a.dcm", RAMP)
    whole = (tmp_path / "a.dcm").read_bytes()
    assert both_ways(tmp_path / "a.dcm").pixels.rows == 8
    (tmp_path / "a.dcm").write_bytes(whole[:-1])
    assert both_ways(tmp_path / "a.dcm")[0] == Reason.TRUNCATED_PIXELS


def test_a_file_cut_at_any_byte_has_a_reason(dicom, tmp_path):
    dicom(tmp_path / "a.dcm", RAMP)
    whole = (tmp_path / "a.dcm").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "b.dcm").write_bytes(whole[:length])
        assert isinstance(both_ways(tmp_path / "b.dcm")[0], Reason)


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


def test_a_header_that_nests_without_end_is_damaged(dicom, tmp_path):
    path = tmp_path / "a.dcm"
    dicom(path, RAMP)
    data = path.read_bytes()
    nest = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 5000
    path.write_bytes(data[: data.index(b"\x10\0\x10\0PN")] + nest)
    assert both_ways(path)[0] == Reason.DAMAGED_HEADER


def test_a_sequence_that_ends_too_early_is_damage_and_no_reading_error(dicom, tmp_path):
    path = tmp_path / "a.dcm"
    dicom(path, RAMP)
    data = path.read_bytes()
    cut = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    path.write_bytes(data[: data.index(b"\x10\0\x10\0PN")] + cut)
    assert both_ways(path)[0] == Reason.DAMAGED_HEADER


def test_spacing_of_a_film_counts_only_for_a_secondary_capture(dicom, tmp_path):
    for sop_class, expected in ((SC, (0.2, 0.3)), (CT, None)):
        dicom(tmp_path / "a.dcm", RAMP, sop_class=sop_class, NominalScannedPixelSpacing=[0.2, 0.3])
        assert both_ways(tmp_path / "a.dcm").frames[0].spacing_mm == expected
    dicom(tmp_path / "a.dcm", RAMP, ImagerPixelSpacing=[0.1, 0.1])
    assert both_ways(tmp_path / "a.dcm").frames[0].spacing_mm == (0.1, 0.1)


def test_a_mosaic_without_its_private_header_is_refused(dicom, tmp_path):
    dicom(tmp_path / "a.dcm", RAMP, sop_class=MR, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    assert isinstance(walk(tmp_path / "a.dcm"), NeedsPydicom)
    assert both_ways(tmp_path / "a.dcm")[0] == Reason.UNSUPPORTED_MOSAIC


def test_a_palette_and_look_up_tables_are_noted(dicom, tmp_path):
    dicom(tmp_path / "a.dcm", RAMP, RedPaletteColorLookupTableDescriptor=[2, 0, 16])
    assert both_ways(tmp_path / "a.dcm").has_lut
    for table in ("ModalityLUTSequence", "VOILUTSequence"):
        dicom(tmp_path / "a.dcm", RAMP, **{table: []})
        assert both_ways(tmp_path / "a.dcm").has_lut
    dicom(tmp_path / "a.dcm", RAMP)
    assert not both_ways(tmp_path / "a.dcm").has_lut


def test_several_patient_ids_are_one(dicom, tmp_path):
    dicom(tmp_path / "a.dcm", RAMP, PatientID=["A", "B"])
    assert both_ways(tmp_path / "a.dcm").patient_id == "['A', 'B']"
    written = dicom(tmp_path / "a.dcm", RAMP, PatientID="")
    assert both_ways(tmp_path / "a.dcm").patient_id == written.StudyInstanceUID


def test_a_cine_has_frames_without_a_place(dicom, tmp_path):
    frames = np.tile(RAMP.astype(np.uint8), (3, 1))
    dicom(
        tmp_path / "a.dcm", frames, sop_class=US, Rows=8, NumberOfFrames=3, FrameTime="33.3",
        ImagePositionPatient=[1, 2, 3],
    )  # fmt: skip
    found = both_ways(tmp_path / "a.dcm")
    assert [frame.index for frame in found.frames] == [0, 1, 2]
    assert all(frame.position_mm is None for frame in found.frames)
    assert (found.family, found.frame_time_ms, found.pixels.frames) == ("ultrasound", 33.3, 3)


def test_colour_is_taken_where_a_camera_or_ultrasound_made_it(dicom, tmp_path):
    pixels = np.zeros((8, 24), np.uint8)
    colour = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 1,
        "Columns": 8,
    }
    dicom(tmp_path / "a.dcm", pixels, sop_class=US, **colour)
    found = both_ways(tmp_path / "a.dcm")
    assert (found.pixels.samples, found.pixels.photometric, found.pixels.planar) == (3, "RGB", True)


def items(*datasets):
    made = []
    for attributes in datasets:
        made.append(Dataset())
        for name, value in attributes.items():
            setattr(made[-1], name, value)
    return made


def test_an_enhanced_object_has_the_frames_of_its_functional_groups(dicom, tmp_path):
    measures = items({"PixelSpacing": [0.5, 0.25], "SliceThickness": 2})
    turned = items({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]})
    places = [items({"ImagePositionPatient": [0, 0, z]}) for z in (5, 7)]
    dicom(
        tmp_path / "a.dcm", np.tile(RAMP, (2, 1)), sop_class=ENHANCED_MR, Rows=8, NumberOfFrames=2,
        SharedFunctionalGroupsSequence=items(
            {"PixelMeasuresSequence": measures, "PlaneOrientationSequence": turned}
        ),
        PerFrameFunctionalGroupsSequence=items(*({"PlanePositionSequence": place} for place in places)),
    )  # fmt: skip
    assert isinstance(walk(tmp_path / "a.dcm"), NeedsPydicom)
    found = both_ways(tmp_path / "a.dcm").frames
    assert [(frame.index, frame.position_mm, frame.spacing_mm) for frame in found] == [
        (0, (0, 0, 5), (0.5, 0.25)),
        (1, (0, 0, 7), (0.5, 0.25)),
    ]


def test_ultrasound_has_its_regions(dicom, tmp_path):
    region = items(
        {
            "RegionSpatialFormat": 1, "RegionDataType": 1, "RegionFlags": 0,
            "RegionLocationMinX0": 1, "RegionLocationMinY0": 2, "RegionLocationMaxX1": 6, "RegionLocationMaxY1": 7,
            "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3, "PhysicalDeltaX": 0.02, "PhysicalDeltaY": 0.01,
        }
    )  # fmt: skip
    dicom(tmp_path / "a.dcm", RAMP, sop_class=US, PixelSpacing=[0.1, 0.1], SequenceOfUltrasoundRegions=region)
    assert isinstance(walk(tmp_path / "a.dcm"), NeedsPydicom)
    found = both_ways(tmp_path / "a.dcm")
    assert found.regions == (Region(2, 1, 7, 6, pytest.approx((0.1, 0.2))),)
    assert found.frames[0].spacing_mm == (0.1, 0.1)


def test_names_in_the_table_are_storage_classes_of_the_standard():
    for row in SOP_CLASSES.values():
        assert (row.taken is None) != (row.reason is None)
        assert UID(row.uid).name != row.uid or row.uid in {STORAGE + "66.7", STORAGE + "66.8"}, row.uid


def test_nothing_of_an_identifier_is_shown(dicom, tmp_path):
    uid = generate_uid()
    dicom(tmp_path / "a.dcm", RAMP, SeriesInstanceUID=uid)
    shown = repr(both_ways(tmp_path / "a.dcm"))
    assert uid not in shown
    assert "ZZPHI" not in shown
