"""NIfTI volumes keep every voxel where it was in the patient."""

import gzip

import nibabel
import numpy as np
import pytest

import peaks
from hilum.client.intake.reasons import Skip
from nifti_files import read_nifti

RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (5, 6, 7)


def values(shape=SHAPE):
    return np.random.default_rng(0).integers(-500, 999, shape).astype(np.int16)


def write(path, array, ras, kind=nibabel.Nifti1Image, code=1, **header):
    image = kind(array, ras)
    image.set_sform(ras, code)
    image.set_qform(None, 0)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def oblique(order=(0, 1, 2), signs=(1, 1, 1)):
    """An affine whose axes lie near those of the patient, in some order, turned by some degrees."""
    turn = np.linalg.qr(np.array([[1, 0.2, -0.1], [0.15, 1, 0.2], [0.1, -0.2, 1]]))[0]
    turn *= np.sign(np.diag(turn))
    ras = np.eye(4)
    ras[:3, :3] = turn[:, list(order)] * np.array(signs) * (0.8, 1.1, 2.5)
    ras[:3, 3] = (12.5, -40, 7)
    return ras


def reason_of(path):
    with pytest.raises(Skip) as caught:
        read_nifti(path)
    return caught.value.reason.value


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, 1), (-1, -1, -1)])
def test_every_voxel_keeps_its_place_in_the_patient(tmp_path, suffix, kind, order, signs):
    array, ras = values(), oblique(order, signs)
    file = read_nifti(write(tmp_path / f"a{suffix}", array, ras, kind))
    (volume,) = file.volumes
    # The place of every voxel as NIfTI states it, turned to LPS, against the place that the new affine gives.
    index = np.indices(array.shape).reshape(3, -1)
    true_mm = (RAS_OF_LPS @ ras @ np.vstack([index, np.ones(index.shape[1])]))[:3]
    new_index = np.linalg.inv(file.affine) @ np.vstack([true_mm, np.ones(index.shape[1])])
    assert np.abs(new_index - np.rint(new_index)).max() < 1e-6
    d, h, w = np.rint(new_index[:3]).astype(int)
    np.testing.assert_array_equal(volume[d, h, w], array.reshape(-1))
    assert np.linalg.norm(file.affine[:3, :3], axis=0) == pytest.approx(file.spacing_mm)
    assert volume.flags.c_contiguous


@pytest.mark.parametrize(
    ("third", "row", "column"),
    [(2, (1, 0, 0), (0, 1, 0)), (1, (1, 0, 0), (0, 0, -1)), (0, (0, 1, 0), (0, 0, -1))],
    ids=["axial", "coronal", "sagittal"],
)
def test_planes_are_seen_as_dicom_shows_them_and_slices_follow_their_normal(tmp_path, third, row, column):
    order = [axis for axis in range(3) if axis != third] + [third]
    ras = np.eye(4)
    ras[:3, :3] = np.eye(3)[:, order]
    affine = read_nifti(write(tmp_path / "a.nii", values(), ras)).affine
    np.testing.assert_allclose(affine[:3, 2], row)
    np.testing.assert_allclose(affine[:3, 1], column)
    np.testing.assert_allclose(affine[:3, 0], np.cross(row, column))


def test_slope_and_intercept_are_applied(tmp_path):
    array = values()
    file = read_nifti(write(tmp_path / "a.nii", array, np.eye(4), scl_slope=0.5, scl_inter=-3))
    raw = read_nifti(write(tmp_path / "b.nii", array, np.eye(4)))
    np.testing.assert_allclose(file.volumes[0], raw.volumes[0] * np.float32(0.5) - 3)
    assert raw.volumes[0].dtype == np.int16


def test_a_big_endian_file_is_read(tmp_path):
    array = values()
    image = nibabel.Nifti1Image(array, np.diag([-1, -1, 1, 1]), nibabel.Nifti1Header(endianness=">"))
    image.set_sform(image.affine, 1)
    nibabel.save(image, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").volumes[0], array.transpose(2, 1, 0))


def test_the_sform_is_preferred_and_the_qform_stands_in(tmp_path):
    image = nibabel.Nifti1Image(values(), np.eye(4))
    image.set_qform(np.diag([2, 2, 2, 1]), 1)
    image.set_sform(np.diag([3, 3, 3, 1]), 2)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").spacing_mm == (3, 3, 3)
    image.set_sform(None, 0)
    image.set_qform(np.diag([2, 2, 2, 1]), 1)
    nibabel.save(image, tmp_path / "b.nii")
    assert read_nifti(tmp_path / "b.nii").spacing_mm == (2, 2, 2)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "c.nii")
    assert reason_of(tmp_path / "c.nii") == "missing_attribute"


def test_micrometres_become_millimetres(tmp_path):
    path = write(tmp_path / "a.nii", values(), np.diag([500.0, 500, 500, 1]), xyzt_units=3)
    assert read_nifti(path).spacing_mm == (0.5, 0.5, 0.5)


def test_each_time_point_is_a_volume(tmp_path):
    array = values((*SHAPE, 3))
    file = read_nifti(write(tmp_path / "a.nii.gz", array, np.diag([-1, -1, 1, 1])))
    for time in range(3):
        np.testing.assert_array_equal(file.volumes[time], array[..., time].transpose(2, 1, 0))


@pytest.mark.parametrize("row", [(0, 0, 0, 0), (1, 0, 0, 0), (np.nan, 0, 1, 0)])
def test_an_affine_that_folds_space_is_refused(tmp_path, row):
    path = write(tmp_path / "a.nii", values(), np.eye(4))
    data = bytearray(path.read_bytes())
    data[312:328] = np.array(row, "<f4").tobytes()  # srow_z
    path.write_bytes(data)
    assert reason_of(path) == "geometry_contradicts_itself"


def test_colour_complex_and_vectors_are_refused(tmp_path):
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for number, array in enumerate([rgb, values().astype(np.complex64), values((*SHAPE, 1, 3))]):
        path = write(tmp_path / f"{number}.nii", array, np.eye(4))
        assert reason_of(path) == "unsupported_pixel_format"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused(tmp_path, bad):
    array = values().astype(np.float32)
    array[2, 2, 2] = bad
    assert reason_of(write(tmp_path / "a.nii", array, np.eye(4))) == "not_finite"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_cut_short_anywhere_gives_a_reason(tmp_path, suffix):
    whole = write(tmp_path / f"a{suffix}", values(), np.eye(4)).read_bytes()
    for length in (0, 3, 100, 347, 360, len(whole) // 2, len(whole) - 20):
        (tmp_path / f"b{suffix}").write_bytes(whole[:length])
        assert reason_of(tmp_path / f"b{suffix}") in {"damaged_file", "truncated_pixels"}


def test_a_gzip_bomb_is_refused_before_it_fills_memory(tmp_path):
    header = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).header
    header["sform_code"] = 1
    header["dim"][:4] = (3, 1200, 1200, 1200)
    zeros = bytes(1 << 24)
    bomb = tmp_path / "a.nii.gz"
    with gzip.open(bomb, "wb", compresslevel=9) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(8):
            file.write(zeros)
    peaks.forget_peak()
    before = peaks.resident_bytes()
    assert reason_of(bomb) == "truncated_pixels"
    header["dim"][:4] = (3, 8, 8, 8)
    with gzip.open(bomb, "wb", compresslevel=9) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(32):
            file.write(zeros)
    assert read_nifti(bomb).volumes[0].shape == (8, 8, 8)
    assert peaks.peak_bytes() - before < 100 << 20


def test_every_mutant_of_a_header_is_read_or_gives_a_reason(tmp_path):
    whole = write(tmp_path / "a.nii", values(), np.eye(4)).read_bytes()
    rng, path, read = np.random.default_rng(1), tmp_path / "b.nii", 0
    for _ in range(400):
        mutant = bytearray(whole)
        for at in rng.integers(4, 352, 3):
            mutant[at] = rng.integers(256)
        path.write_bytes(mutant)
        try:
            read_nifti(path)
            read += 1
        except Skip:
            continue
    assert 0 < read < 400
