"""What a file's header becomes: an instance, or a reason; the same whichever way the header was read."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

from header_reads import CT, ENHANCED_MR, MR, RAMP, SC, SR, STORAGE, US, both_ways
from hilum.client.intake.headers.header_values import seconds
from hilum.client.intake.headers.read_instance import NeedsPydicom, walk
from hilum.client.intake.headers.sop_classes import SOP_CLASSES
from hilum.client.intake.instance import Region
from hilum.client.intake.reasons import Reason


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
