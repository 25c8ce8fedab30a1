"""Diffusion series whose b-values and directions stand in private elements only."""

import struct

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.client.intake.headers.diffusion import Diffusion, read_diffusion
from hilum.client.intake.indexing import planning
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.reasons import Reason
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress

MR = "1.2.840.10008.5.1.4.1.1.4"
WEIGHTS = [(0, (0.0, 0.0, 0.0)), (500, (1.0, 0.0, 0.0)), (500, (0.0, 0.6, 0.8)), (1000, (0.0, 1.0, 0.0))]
SLICES = 5


def siemens(dataset, b_value, gradient):
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", b_value)
    if b_value:
        block.add_new(0x0E, "FD", list(gradient))


def ge(dataset, b_value, gradient):
    flagged = b_value + 1_000_000_000 if b_value else 0
    dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", [flagged, 8, 0, 0])
    block = dataset.private_block(0x0019, "GEMS_ACQU_01", create=True)
    for axis, value in enumerate(gradient):
        block.add_new(0xBB + axis, "DS", value)


def philips(dataset, b_value, gradient):
    dataset.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", b_value)
    block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    for axis, value in enumerate(gradient):
        block.add_new(0xB0 + axis, "FL", value)


def unknown(vendor):
    """The same elements as another writer leaves them, that does not know their VR."""

    def write(dataset, b_value, gradient):
        vendor(dataset, b_value, gradient)
        for element in [one for one in dataset if one.tag.is_private and not one.tag.is_private_creator]:
            values = element.value if element.VM > 1 else [element.value]
            code = {"FD": "d", "FL": "f"}.get(element.VR)
            text = "\\".join(map(str, values)).encode()
            raw = struct.pack(f"<{len(values)}{code}", *values) if code else text + b" " * (len(text) % 2)
            dataset.add_new(element.tag, "UN", raw)

    return write


@pytest.fixture
def index(tmp_path):
    def run():
        workspace = Workspace(tmp_path / "state")
        counts = index_archive(tmp_path / "archive", workspace, NullProgress()).counts
        catalogue, cache = Catalogue(workspace.catalogue), ArrayCache(workspace.cache)
        try:
            return counts, [np.array(cache.get(item.content_sha256)) for item in catalogue.items()]
        finally:
            catalogue.close()

    return run


@pytest.fixture
def write(dicom, tmp_path):
    """A series of one volume a weight, whose numbers and times tell nothing. Gives the volumes."""

    def run(vendor, syntax=ExplicitVRLittleEndian, weights=WEIGHTS):
        rng = np.random.default_rng(3)
        volumes = rng.integers(0, 900, (len(weights), SLICES, 8, 8)).astype(np.int16)
        numbers = rng.permutation(volumes.shape[0] * SLICES)
        for number, (weight, k) in zip(numbers, np.ndindex(len(weights), SLICES), strict=True):
            path = tmp_path / "archive" / f"{number:03d}"
            dataset = dicom(
                path,
                volumes[weight, k],
                sop_class=MR,
                syntax=syntax,
                SeriesInstanceUID="1.2.3",
                StudyInstanceUID="1.2.4",
                InstanceNumber=int(number),
                ImagePositionPatient=[0, 0, 3 * k],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[1, 1],
                ImageType=["ORIGINAL", "PRIMARY", "OTHER"],
            )
            vendor(dataset, *weights[weight])
            pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        return volumes

    return run


VENDORS = [siemens, ge, philips, *map(unknown, (siemens, ge, philips))]


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("vendor", VENDORS)
def test_each_weight_of_a_vendor_is_a_volume(write, index, vendor, syntax):
    volumes = write(vendor, syntax)
    counts, made = index()
    assert (counts.instances, counts.volumes, counts.skipped) == (volumes.shape[0] * SLICES, len(WEIGHTS), {})
    assert sorted(array.tolist() for array in made) == sorted(volumes.tolist())
    assert index()[0] == counts


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(("b_value", "gradient"), WEIGHTS)
def test_the_values_are_those_that_the_vendor_wrote(dicom, tmp_path, vendor, b_value, gradient):
    dataset = dicom(tmp_path / "a", np.zeros((8, 8), np.uint16), sop_class=MR)
    vendor(dataset, b_value, gradient)
    pydicom.dcmwrite(tmp_path / "a", dataset, enforce_file_format=True)
    found = read_diffusion(tmp_path / "a", ExplicitVRLittleEndian)
    assert found.b_value == b_value
    if b_value or found.gradient:
        assert found.gradient == pytest.approx(gradient)


def test_elements_without_their_creator_tell_nothing(write, index):
    def stranger(dataset, b_value, _gradient):
        dataset.private_block(0x0019, "SOMEBODY ELSE", create=True).add_new(0x0C, "IS", b_value)

    volumes = write(stranger)
    assert index()[0].skipped == {Reason.MULTIPLE_TIMES: volumes.shape[0] * SLICES}


def test_a_copy_in_a_diffusion_series_is_still_a_copy(write, index, tmp_path):
    volumes = write(siemens)
    content = (tmp_path / "archive" / "003").read_bytes()
    (tmp_path / "archive" / "again").write_bytes(content)
    counts, made = index()
    assert counts.skipped == {Reason.DUPLICATE: 1}
    assert len(made) == len(volumes)


def test_a_series_without_a_doubt_is_not_asked(write, index, monkeypatch):
    monkeypatch.setattr(planning, "ReadDiffusion", None)
    volumes = write(siemens, weights=WEIGHTS[:1])
    assert np.array_equal(index()[1], volumes)


@pytest.mark.parametrize(
    ("b_value", "expected"), [("abc", None), ("-5", None), ("", None), ("1e400", None), ("1000", 1000.0)]
)
def test_a_b_value_that_is_none_tells_nothing(dicom, tmp_path, monkeypatch, b_value, expected):
    dataset = dicom(tmp_path / "a", np.zeros((8, 8), np.uint16), sop_class=MR)
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "UN", b_value.encode() + b" " * (len(b_value) % 2))
    block.add_new(0x0E, "UN", b"\0" * 7)
    with monkeypatch.context() as patch:
        patch.setattr(pydicom.config, "replace_un_with_known_vr", False)
        pydicom.dcmwrite(tmp_path / "a", dataset, enforce_file_format=True)
    assert read_diffusion(tmp_path / "a", ExplicitVRLittleEndian) == Diffusion(expected)
