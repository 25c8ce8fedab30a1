"""The tag walker and pydicom agree on any valid data set."""

import pydicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from hilum.client.intake.headers.tags import TAKEN
from walked_files import same_as_pydicom

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
    dataset.preamble = b"\0" * 128  # without one the walker leaves a file to pydicom
    with pydicom.config.disable_value_validation():
        pydicom.dcmwrite(path, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    same_as_pydicom(path)
