import numpy as np
import pytest

from hilum.client.intake.index import index_archive
from hilum.client.prepared import FULL_SCALE, fit, prepare, unit_range
from hilum.client.workspace import Workspace
from hilum.common.config.study import DataSection
from hilum.common.errors import DataError
from hilum.common.progress import Quiet

RADIOGRAPHS = DataSection(modality="radiograph", image_size=16)


@pytest.fixture
def workspace(dicom, tmp_path):
    rng = np.random.default_rng(0)
    for n in range(3):
        dicom(tmp_path / "dicom" / f"{n}.dcm", rng.integers(0, 999, (40, 30)).astype(np.uint16))
    made = Workspace(tmp_path / "state")
    index_archive(tmp_path / "dicom", made, Quiet())
    return made


def test_images_are_packed_at_the_studys_size_in_the_order_of_their_content(workspace):
    prepared = prepare(workspace, RADIOGRAPHS)
    assert prepared.images.shape == (3, 1, 20, 20)
    assert prepared.images.dtype == np.uint16
    hashes = [item.content_sha256 for item in prepared.items]
    assert hashes == sorted(hashes)


def test_the_order_does_not_depend_on_the_sites_key(dicom, tmp_path):
    rng = np.random.default_rng(0)
    for n in range(4):
        dicom(tmp_path / "dicom" / f"{n}.dcm", rng.integers(0, 999, (20, 20)).astype(np.uint16))
    made = []
    for name in ("one", "other"):
        workspace = Workspace(tmp_path / name)
        index_archive(tmp_path / "dicom", workspace, Quiet())
        made.append(prepare(workspace, RADIOGRAPHS))
    assert np.array_equal(made[0].images, made[1].images)
    assert made[0].items[0].patient_key != made[1].items[0].patient_key


def test_a_second_call_does_not_pack_again(workspace):
    prepare(workspace, RADIOGRAPHS)
    [packed] = workspace.prepared.glob("*/images.npy")
    before = packed.stat().st_mtime_ns
    prepare(workspace, RADIOGRAPHS)
    assert packed.stat().st_mtime_ns == before


def test_a_changed_archive_is_packed_anew_and_the_earlier_pack_goes(workspace, dicom, tmp_path):
    prepare(workspace, RADIOGRAPHS)
    other_size = DataSection(modality="radiograph", image_size=32)
    prepare(workspace, other_size)
    dicom(
        tmp_path / "dicom" / "new.dcm", np.random.default_rng(9).integers(0, 999, (40, 30)).astype(np.uint16)
    )
    index_archive(tmp_path / "dicom", workspace, Quiet())
    assert len(prepare(workspace, RADIOGRAPHS).images) == 4
    assert len(list(workspace.prepared.iterdir())) == 2


def test_proportions_are_kept_and_the_rest_is_black():
    fitted = fit(np.ones((40, 20), np.float32), (), 20)
    assert np.all(fitted[:, 5:15] > 0.99)
    assert fitted[:, :5].max() == fitted[:, 15:].max() == 0


def test_a_volume_is_scaled_by_millimetres_not_voxels():
    fitted = fit(np.ones((5, 20, 20), np.float32), (4.0, 1.0, 1.0), 10)
    assert np.all(fitted > 0.99)


def test_scales_are_those_of_the_modality():
    assert unit_range(np.array([0, FULL_SCALE], np.uint16), "radiograph").tolist() == [0, 1]
    assert unit_range(np.array([-2000, -1000, 0, 1000, 3000], np.int16), "ct").tolist() == [0, 0, 0.5, 1, 1]
    mr = unit_range(np.arange(1001, dtype=np.float32), "mr")
    assert mr[0] == 0
    assert mr[-1] == 1
    assert mr[500] == pytest.approx(0.5)


def test_a_3d_study_on_2d_data_is_told_what_the_site_has(workspace):
    with pytest.raises(
        DataError, match=r"asks for mr in 3D, the site has radiograph in 2D; change `data.modality`"
    ):
        prepare(workspace, DataSection(modality="mr", dims=3, image_size=16))


def test_a_site_that_was_never_indexed_is_told_to(tmp_path):
    with pytest.raises(DataError, match="hilum site index"):
        prepare(Workspace(tmp_path / "none"), RADIOGRAPHS)


def test_a_site_without_a_usable_image_is_told_so(dicom, tmp_path):
    dicom(tmp_path / "dicom" / "a.dcm", np.zeros((8, 8), np.uint16))
    index_archive(tmp_path / "dicom", Workspace(tmp_path / "state"), Quiet())
    with pytest.raises(DataError, match="no usable image"):
        prepare(Workspace(tmp_path / "state"), RADIOGRAPHS)
