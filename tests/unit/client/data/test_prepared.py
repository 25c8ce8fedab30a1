from typing import get_args

import numpy as np
import pytest

from hilum.client.data.prepared import prepare
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.instance import Family
from hilum.client.state.workspace import Workspace
from hilum.client.views import batch
from hilum.common.config.data import DataSection
from hilum.common.config.modalities import MODALITIES
from hilum.common.errors import DataError
from hilum.common.preparation.fitting import fit
from hilum.common.preparation.intensity import FULL_SCALE, unit_range
from hilum.common.progress import NullProgress

RADIOGRAPHS = DataSection(modality="radiograph", image_size=16)


@pytest.fixture
def workspace(dicom, tmp_path):
    rng = np.random.default_rng(0)
    for n in range(3):
        dicom(tmp_path / "dicom" / f"{n}.dcm", rng.integers(0, 999, (40, 30)).astype(np.uint16))
    made = Workspace(tmp_path / "state")
    index_archive(tmp_path / "dicom", made, NullProgress())
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
        index_archive(tmp_path / "dicom", workspace, NullProgress())
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
    index_archive(tmp_path / "dicom", workspace, NullProgress())
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
    assert unit_range(np.array([0, FULL_SCALE], np.uint16), MODALITIES["radiograph"]).tolist() == [0, 1]
    assert unit_range(np.array([-2000, -1000, 0, 1000, 3000], np.int16), MODALITIES["ct"]).tolist() == [
        0,
        0,
        0.5,
        1,
        1,
    ]
    mr = unit_range(np.arange(1001, dtype=np.float32), MODALITIES["mr"])
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
    index_archive(tmp_path / "dicom", Workspace(tmp_path / "state"), NullProgress())
    with pytest.raises(DataError, match="no usable image"):
        prepare(Workspace(tmp_path / "state"), RADIOGRAPHS)


CT_VOLUMES = DataSection(modality="ct", dims=3, image_size=8)


def test_only_ct_in_hounsfield_units_is_packed_and_the_rest_is_counted(write_series, tmp_path):
    from hilum.client.commands.status import status_lines
    from hilum.client.gallery.status import site_status

    stored = np.random.default_rng(0).integers(0, 2000, (6, 16, 16)).astype(np.uint16)
    write_series(tmp_path / "dicom" / "hu", stored, RescaleSlope=1, RescaleIntercept=-1024)
    write_series(tmp_path / "dicom" / "bare", stored)
    write_series(
        tmp_path / "dicom" / "iodine", stored, RescaleSlope=1, RescaleIntercept=0, RescaleType="MGML"
    )
    workspace = Workspace(tmp_path / "state")
    index_archive(tmp_path / "dicom", workspace, NullProgress())
    [item] = prepare(workspace, CT_VOLUMES).items
    assert item.units == "hounsfield"
    status = site_status(workspace)
    assert status.families["ct"].not_in_hounsfield_units == 2
    assert any("2 volumes are not known to be in Hounsfield units" in line for line in status_lines(status))


def test_slices_of_another_quantity_are_no_part_of_a_volume(write_series, tmp_path):
    stored = np.random.default_rng(0).integers(0, 2000, (12, 16, 16)).astype(np.uint16)
    for slices, quantity in ((stored[:6], "HU"), (stored[6:], "Z_EFF")):
        uids = {"SeriesInstanceUID": "1.2.3.4", "StudyInstanceUID": "1.2.3"}
        write_series(
            tmp_path / "dicom" / quantity,
            slices,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            RescaleType=quantity,
            **uids,
        )
    workspace = Workspace(tmp_path / "state")
    index_archive(tmp_path / "dicom", workspace, NullProgress())
    [item] = prepare(workspace, CT_VOLUMES).items
    assert item.shape == (6, 16, 16)


def test_a_site_whose_ct_has_no_units_is_told_why_nothing_fits(write_series, tmp_path):
    write_series(
        tmp_path / "dicom", np.random.default_rng(0).integers(0, 2000, (6, 16, 16)).astype(np.uint16)
    )
    workspace = Workspace(tmp_path / "state")
    index_archive(tmp_path / "dicom", workspace, NullProgress())
    with pytest.raises(DataError, match="1 CT volumes are not in Hounsfield units"):
        prepare(workspace, CT_VOLUMES)


@pytest.mark.parametrize(
    ("lowest", "units"), [(-1000, "hounsfield"), (-100, "hounsfield"), (-99, "arbitrary"), (0, "arbitrary")]
)
def test_a_nifti_ct_without_air_is_not_taken_for_hounsfield_units(tmp_path, lowest, units):
    import nibabel

    from hilum.client.state.catalogue import Catalogue

    values = np.random.default_rng(0).integers(lowest, 900, (6, 7, 8)).astype(np.int16)
    values[0, 0, 0] = lowest
    (tmp_path / "folder").mkdir()
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "folder" / "a.nii")
    workspace = Workspace(tmp_path / "state")
    index_archive(tmp_path / "folder", workspace, NullProgress(), images="ct")
    catalogue = Catalogue(workspace.catalogue)
    [item] = catalogue.items()
    catalogue.close()
    assert item.units == units


def test_every_family_of_the_catalogue_but_one_has_modalities_and_these_have_views_and_rules():
    # A secondary capture may show anything, so there is no view of it.
    assert {facts.family for facts in MODALITIES.values()} == set(get_args(Family)) - {"secondary"}
    assert set(batch._RECIPES) == set(MODALITIES)
    assert {facts.channels for facts in MODALITIES.values()} == {1, 3}
