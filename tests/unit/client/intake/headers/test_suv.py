"""SUV by body weight out of a header: each way of saying it, each reason for none, and both readers alike."""

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.client.intake.headers.pet_tags import NAME_OF_INJECTIONS, OF_INJECTION, OF_SERIES
from hilum.client.intake.headers.pydicom_tags import pydicom_tags
from hilum.client.intake.headers.read_instance import read_instance, read_with_pydicom, walk
from hilum.client.intake.headers.walker import walk_tags
from hilum.client.intake.instance import Instance
from hilum.client.intake.no_suv import NoSuv
from pet_files import DOSE_BQ, F18_S, PET, WEIGHT_KG, add_philips, injection, pet
from walked_files import same_as_pydicom

PIXELS = np.arange(16, dtype=np.uint16).reshape(4, 4)
AN_HOUR_LATER = WEIGHT_KG * 1000 / (DOSE_BQ * 0.5 ** (3600 / F18_S))


@pytest.fixture
def suv(dicom, tmp_path):
    """Write a slice, read it in both ways, and give what both say."""

    def read(attributes, *, sop_class=PET, philips=None, syntax=ExplicitVRLittleEndian):
        path = tmp_path / "slice.dcm"
        with pydicom.config.disable_value_validation():
            dicom(path, PIXELS, sop_class=sop_class, syntax=syntax, **attributes)
        if philips is not None:
            add_philips(path, **philips)
        walked, read = walk(path), read_with_pydicom(path)
        assert isinstance(walked, Instance), "the fast way is sure of an ordinary PET"
        assert (walked, walked.suv) == (read, read.suv)
        return walked.suv

    return read


SAID = {
    "start and date of injection": (pet(), AN_HOUR_LATER),
    "time of injection alone, as of old": (
        pet(injection(RadiopharmaceuticalStartDateTime=None)),
        AN_HOUR_LATER,
    ),
    "date and time of injection alone": (pet(injection(RadiopharmaceuticalStartTime=None)), AN_HOUR_LATER),
    "the fraction of a second is lost in an image's time": (
        pet(SeriesTime="100000.9", AcquisitionTime="100000"),
        WEIGHT_KG * 1000 / (DOSE_BQ * 0.5 ** (3600.9 / F18_S)),
    ),
    "a later bed position": (pet(AcquisitionTime="102500"), AN_HOUR_LATER),
    "three half-lives after the injection": (
        pet(SeriesTime="142918.6", AcquisitionTime="142918.6"),
        WEIGHT_KG * 1000 / (DOSE_BQ / 8),
    ),
    "over midnight, with dates": (
        pet(
            injection(
                RadiopharmaceuticalStartTime="233000", RadiopharmaceuticalStartDateTime="20240309233000"
            ),
            SeriesTime="003000",
            AcquisitionTime="003000",
        ),
        AN_HOUR_LATER,
    ),
    "three days after, with dates": (
        pet(
            injection(
                RadionuclideHalfLife=282_240,
                RadionuclideTotalDose=37e6,
                RadiopharmaceuticalStartDateTime="20240307090000",
            )
        ),
        WEIGHT_KG * 1000 / (37e6 * 0.5 ** (73 * 3600 / 282_240)),
    ),
    "decay corrected to the injection, without any time": (
        pet(
            injection(
                RadiopharmaceuticalStartTime=None,
                RadiopharmaceuticalStartDateTime=None,
                RadionuclideHalfLife=None,
            ),
            DecayCorrection="ADMIN",
            SeriesDate="",
            SeriesTime=None,
            AcquisitionDate="",
        ),
        WEIGHT_KG * 1000 / DOSE_BQ,
    ),
    "SUV already": (pet(Units="GML", SUVType="BW", PatientWeight=None), 1.0),
    "SUV already, and by nothing else": (pet(Units="GML"), 1.0),
}


@pytest.mark.parametrize(("attributes", "factor"), SAID.values(), ids=SAID)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_factor_is_that_of_the_recipe(suv, attributes, factor, syntax):
    assert suv(attributes, syntax=syntax) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_counts_of_philips_take_its_factor_or_what_makes_activity_of_them(suv, syntax):
    counts = pet(Units="CNTS")
    assert suv(counts, philips={"suv": "0.000551"}, syntax=syntax) == 0.000551
    by_activity = suv(counts, philips={"suv": "0", "activity": "2.5"}, syntax=syntax)
    assert by_activity == pytest.approx(2.5 * AN_HOUR_LATER)
    assert suv(counts, philips={}, syntax=syntax) is NoSuv.OTHER_UNITS
    assert suv(counts, philips={"suv": "-1"}, syntax=syntax) is NoSuv.OTHER_UNITS
    somebody_else = {"creator": "SOMEBODY ELSE", "suv": "0.000551"}
    assert suv(counts, philips=somebody_else, syntax=syntax) is NoSuv.OTHER_UNITS
    assert suv(pet(), philips={"suv": "0.5"}, syntax=syntax) == pytest.approx(AN_HOUR_LATER), (
        "of values in Bq/ml it says nothing"
    )


TIMES_TAKEN_OUT = pet(
    injection(RadiopharmaceuticalStartTime="000000", RadiopharmaceuticalStartDateTime="20240310000000"),
    SeriesTime="000000",
    AcquisitionTime="000000",
)
REFUSED = {
    "no attenuation correction": (pet(CorrectedImage=["DECY", "SCAT"]), NoSuv.NOT_CORRECTED),
    "no decay correction": (pet(CorrectedImage=["ATTN"]), NoSuv.NOT_CORRECTED),
    "nothing said of corrections": (pet(CorrectedImage=None), NoSuv.NOT_CORRECTED),
    "uncorrected SUV": (pet(CorrectedImage=["DECY"], Units="GML"), NoSuv.NOT_CORRECTED),
    "decay not corrected": (pet(DecayCorrection="NONE"), NoSuv.OTHER_DECAY),
    "decay not told of": (pet(DecayCorrection=None), NoSuv.OTHER_DECAY),
    "counts": (pet(Units="CNTS"), NoSuv.OTHER_UNITS),
    "no units": (pet(Units=None), NoSuv.OTHER_UNITS),
    "percent": (pet(Units="PCNT"), NoSuv.OTHER_UNITS),
    "a table instead of a rescale": (pet(ModalityLUTSequence=Sequence([Dataset()])), NoSuv.OTHER_UNITS),
    "lean body mass": (pet(Units="GML", SUVType="LBM"), NoSuv.OTHER_SUV),
    "body surface": (pet(Units="GML", SUVType=["BW", "BSA"]), NoSuv.OTHER_SUV),
    "no weight": (pet(PatientWeight=None), NoSuv.WEIGHT),
    "an empty weight": (pet(PatientWeight=""), NoSuv.WEIGHT),
    "weight 0": (pet(PatientWeight=0), NoSuv.WEIGHT),
    "grams": (pet(PatientWeight=70_000), NoSuv.WEIGHT),
    "no kilogram": (pet(PatientWeight=0.07), NoSuv.WEIGHT),
    "a weight of 1 kg in place of the true one": (pet(PatientWeight=1), NoSuv.DOSE),
    "no injection": (pet(RadiopharmaceuticalInformationSequence=None), NoSuv.INJECTION),
    "an empty sequence": (pet(RadiopharmaceuticalInformationSequence=Sequence([])), NoSuv.INJECTION),
    "two injections": (pet(injection(), injection()), NoSuv.INJECTION),
    "no dose": (pet(injection(RadionuclideTotalDose=None)), NoSuv.DOSE),
    "dose 0": (pet(injection(RadionuclideTotalDose=0)), NoSuv.DOSE),
    "a negative dose": (pet(injection(RadionuclideTotalDose=-DOSE_BQ)), NoSuv.DOSE),
    "MBq": (pet(injection(RadionuclideTotalDose=350)), NoSuv.DOSE),
    "kBq": (pet(injection(RadionuclideTotalDose=350_000)), NoSuv.DOSE),
    "mBq": (pet(injection(RadionuclideTotalDose=350e9)), NoSuv.DOSE),
    "no half-life": (pet(injection(RadionuclideHalfLife=None)), NoSuv.HALF_LIFE),
    "half-life in hours": (pet(injection(RadionuclideHalfLife=1.83)), NoSuv.HALF_LIFE),
    "half-life in minutes": (pet(injection(RadionuclideHalfLife=109.77)), NoSuv.NOT_BEFORE_SCAN),
    "no date of the series": (pet(SeriesDate=None), NoSuv.SCAN_TIME),
    "no time of the series": (pet(SeriesTime=""), NoSuv.SCAN_TIME),
    "a day that is none": (pet(SeriesDate="20240231"), NoSuv.SCAN_TIME),
    "a time that is none": (pet(SeriesTime="990000"), NoSuv.SCAN_TIME),
    "no date of the image": (pet(AcquisitionDate=None), NoSuv.SCAN_TIME),
    "no time of the image": (pet(AcquisitionTime=None), NoSuv.SCAN_TIME),
    "a series made later": (pet(SeriesTime="100500"), NoSuv.OTHER_START),
    "a series of the day before": (
        pet(SeriesDate="20240309", SeriesTime="180000", AcquisitionDate="20240310")
        | {
            "RadiopharmaceuticalInformationSequence": Sequence(
                [injection(RadiopharmaceuticalStartTime="170000", RadiopharmaceuticalStartDateTime=None)]
            )
        },
        NoSuv.OTHER_START,
    ),
    "no time of injection": (
        pet(injection(RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime=None)),
        NoSuv.INJECTION_TIME,
    ),
    "a malformed time of injection": (
        pet(injection(RadiopharmaceuticalStartTime="9 o'clock")),
        NoSuv.INJECTION_TIME,
    ),
    "an injection on a day without an hour": (
        pet(injection(RadiopharmaceuticalStartDateTime="20240310")),
        NoSuv.INJECTION_TIME,
    ),
    "an injection in another time zone": (
        pet(injection(RadiopharmaceuticalStartDateTime="20240310080000+0000")),
        NoSuv.INJECTION_TIME,
    ),
    "an injection at two times": (
        pet(injection(RadiopharmaceuticalStartTime="080000")),
        NoSuv.INJECTION_TIME,
    ),
    "a long-lived nuclide without the day": (
        pet(injection(RadionuclideHalfLife=282_240, RadiopharmaceuticalStartDateTime=None)),
        NoSuv.INJECTION_DAY,
    ),
    "injected after the scan": (
        pet(injection(RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime="20240310100100")),
        NoSuv.NOT_BEFORE_SCAN,
    ),
    "over midnight, without a date": (
        pet(
            injection(RadiopharmaceuticalStartTime="233000", RadiopharmaceuticalStartDateTime=None),
            SeriesTime="003000",
            AcquisitionTime="003000",
        ),
        NoSuv.NOT_BEFORE_SCAN,
    ),
    "dates altered apart": (
        pet(SeriesDate="20240401", AcquisitionDate="20240401"),
        NoSuv.NOT_BEFORE_SCAN,
    ),
    "the injection's date altered": (
        pet(injection(RadiopharmaceuticalStartDateTime="19000101090000")),
        NoSuv.NOT_BEFORE_SCAN,
    ),
    "the injection's time taken out": (
        pet(injection(RadiopharmaceuticalStartTime="000000", RadiopharmaceuticalStartDateTime=None)),
        NoSuv.NOT_BEFORE_SCAN,
    ),
    "the scan's time taken out": (
        pet(
            injection(RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime="20240309230000"),
            SeriesTime="000000",
            AcquisitionTime="000000",
        ),
        NoSuv.NOT_BEFORE_SCAN,
    ),
    "seven half-lives after the injection": (
        pet(SeriesTime="215000", AcquisitionTime="215000"),
        NoSuv.NOT_BEFORE_SCAN,
    ),
    "times taken out": (TIMES_TAKEN_OUT, NoSuv.NOT_BEFORE_SCAN),
}


@pytest.mark.parametrize(("attributes", "reason"), REFUSED.values(), ids=REFUSED)
def test_where_something_is_missing_or_cant_be_true_there_is_no_factor_and_a_reason(suv, attributes, reason):
    assert suv(attributes) is reason


def test_every_reason_of_a_header_is_tried_here():
    elsewhere = {
        NoSuv.NOT_LOOKED_FOR,
        NoSuv.NO_HEADER,
        NoSuv.ENHANCED,
        NoSuv.SLICES_DIFFER,
    }  # further down, and of volumes
    assert {reason for _, reason in REFUSED.values()} == set(NoSuv) - elsewhere


def test_of_other_images_neither_weight_nor_dose_is_taken(dicom, tmp_path):
    path = tmp_path / "ct.dcm"
    dicom(path, PIXELS, sop_class="1.2.840.10008.5.1.4.1.1.2", **pet())
    taken = {keyword for keyword, _ in (*OF_SERIES.values(), *OF_INJECTION.values())} | {NAME_OF_INJECTIONS}
    for tags in (walk_tags(path), pydicom_tags(path)):
        assert taken.isdisjoint(tags.values)
    assert read_instance(path).suv is None


def test_what_is_told_shows_nothing_of_the_patient(dicom, tmp_path):
    path = tmp_path / "pet.dcm"
    dicom(path, PIXELS, sop_class=PET, **pet())
    assert "suv" not in repr(read_instance(path))
    assert "70" not in repr(walk_tags(path))


def test_a_file_that_says_outside_that_it_is_something_else_is_read_by_what_it_says_inside(dicom, tmp_path):
    path = tmp_path / "pet.dcm"
    for inside, outside in ((PET, "1.2.840.10008.5.1.4.1.1.2"), ("1.2.840.10008.5.1.4.1.1.2", PET)):
        dataset = dicom(path, PIXELS, sop_class=inside, **pet())
        dataset.file_meta.MediaStorageSOPClassUID = outside
        pydicom.dcmwrite(path, dataset)
        assert walk_tags(path) is None
        one = read_instance(path)
        assert one.family == ("pet" if inside == PET else "ct")
        assert one.suv == (pytest.approx(AN_HOUR_LATER) if inside == PET else None)


def test_an_image_is_good_without_a_sequence_that_can_be_read(dicom, tmp_path):
    path = tmp_path / "pet.dcm"
    for injections in (b"\1\2\3\4\5\6", b"\xfe\xff\x00\xe0\xff\x00\x00\x00\1\2", b"\0" * 40):
        attributes = pet(RadiopharmaceuticalInformationSequence=None)
        dataset = dicom(path, PIXELS, sop_class=PET, **attributes)
        dataset.add_new(0x0054_0016, "OB", injections)
        pydicom.dcmwrite(path, dataset)
        data = bytearray(path.read_bytes())
        place = data.index(b"\x54\x00\x16\x00OB")
        data[place + 4 : place + 6] = b"SQ"
        path.write_bytes(data)
        assert isinstance(read_instance(path).suv, NoSuv)


def test_text_where_a_number_belongs_gives_no_factor_and_takes_the_image(dicom, tmp_path):
    path = tmp_path / "pet.dcm"
    with pydicom.config.disable_value_validation():
        dataset = dicom(path, PIXELS, sop_class=PET, **pet(PatientWeight=None))
        dataset.add_new("PatientWeight", "LO", "about seventy")
        pydicom.dcmwrite(path, dataset)
    assert read_instance(path).suv is NoSuv.WEIGHT


numbers = st.one_of(st.just(""), st.floats(0.001, 1e9).map(lambda value: f"{value:.9g}"))
texts = st.text("ABC 12_", max_size=8)
BY_VR = {
    "DS": numbers,
    "CS": texts,
    "LO": st.sampled_from(["", "Philips PET Private Group"]),
    "DA": st.sampled_from(["", "20240310", "2024.03.10", "x"]),
    "TM": st.sampled_from(["", "120102", "23", "010203.45"]),
    "DT": st.sampled_from(["", "20240310090000.00", "20240310", "20240310090000+0100"]),
}


def _some(draw, dataset, table):
    for tag in draw(st.lists(st.sampled_from(sorted(table)), unique=True)):
        value = draw(BY_VR[table[tag][1]])
        with pydicom.config.disable_value_validation():
            dataset.add_new(tag, table[tag][1], value)


@st.composite
def pets(draw):
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Rows = PET, 4
    _some(draw, dataset, OF_SERIES)
    if draw(st.booleans()):
        items = []
        for _ in range(draw(st.integers(0, 2))):
            item = Dataset()
            _some(draw, item, OF_INJECTION)
            code = Dataset()
            code.CodeValue = draw(texts)
            code.is_undefined_length_sequence_item = draw(st.booleans())
            item.RadionuclideCodeSequence = Sequence([code])
            item["RadionuclideCodeSequence"].is_undefined_length = draw(st.booleans())
            item.is_undefined_length_sequence_item = draw(st.booleans())
            items.append(item)
        dataset.RadiopharmaceuticalInformationSequence = Sequence(items)
        dataset["RadiopharmaceuticalInformationSequence"].is_undefined_length = draw(st.booleans())
    if draw(st.booleans()):
        block = dataset.private_block(
            0x0029, "MAKER", create=True
        )  # so that the sequence lies where a read ends
        block.add_new(1, "OB", b"x" * 2 * draw(st.integers(7_700, 8_300)))
    dataset.BitsAllocated, dataset.PixelData = 16, b"\0" * 32
    dataset["PixelData"].VR = "OW"
    return dataset


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(dataset=pets(), syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
def test_walker_and_pydicom_agree_on_any_valid_pet(tmp_path_factory, dataset, syntax):
    path = tmp_path_factory.getbasetemp() / "pet.dcm"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.preamble = b"\0" * 128  # without one the walker leaves a file to pydicom
    dataset.file_meta.MediaStorageSOPClassUID = PET
    with pydicom.config.disable_value_validation():
        pydicom.dcmwrite(path, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    assert same_as_pydicom(path) is not None


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1"])
def test_enhanced_pet_says_it_in_another_way_which_is_not_read(dicom, tmp_path, sop_class):
    frame = Dataset()
    for group, values in {
        "PlanePositionSequence": {"ImagePositionPatient": [0, 0, 0]},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        "PixelMeasuresSequence": {"PixelSpacing": [4, 4], "SliceThickness": 3},
        "PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": 0},
    }.items():
        one = Dataset()
        for name, value in values.items():
            setattr(one, name, value)
        setattr(frame, group, Sequence([one]))
    path = tmp_path / "enhanced.dcm"
    dicom(
        path,
        PIXELS,
        sop_class=sop_class,
        NumberOfFrames=1,
        SharedFunctionalGroupsSequence=Sequence([Dataset()]),
        PerFrameFunctionalGroupsSequence=Sequence([frame]),
        **pet(),
    )
    one = read_instance(path)
    assert (one.family, one.frames[0].spacing_mm, one.suv) == ("pet", (4.0, 4.0), NoSuv.ENHANCED)
