"""Volumes packed for patches and slices: values, what is packed again and what is not, disk and memory."""

import shutil

import numpy as np
import pytest

import peaks
from hilum.client.commands.status import status_lines
from hilum.client.data import volume_packing
from hilum.client.data.prepared import cut, drawn, holding_of, prepare
from hilum.client.data.volumes import VolumeFile, Volumes, cells_of, joined
from hilum.client.gallery.status import site_status
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.cache import ArrayCache
from hilum.client.state.workspace import Workspace
from hilum.common.config.data import DataSection
from hilum.common.errors import DamagedError, DataError
from hilum.common.preparation.pieces import Geometry
from hilum.common.progress import NullProgress

PATCHES = DataSection(modality="ct", dims=3, image_size=16, spacing_mm=1.0)
SLICES = DataSection(modality="ct", cut="slices", image_size=16)
HU = {"RescaleSlope": 1, "RescaleIntercept": -1024}


def body(seed, shape=(10, 24, 30)):
    """A ball of tissue in air, stored as a scanner does."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, edge) for edge in shape), indexing="ij")
    inside = z**2 + y**2 + x**2 < 0.5
    return (inside * 1024 + rng.integers(0, 40, shape)).astype(np.uint16)


@pytest.fixture
def workspace(write_series, tmp_path):
    for n in range(3):
        write_series(tmp_path / "dicom" / str(n), body(n), spacing_mm=(3.0, 1.5, 1.0), **HU)
    made = Workspace(tmp_path / "state")
    index_archive(tmp_path / "dicom", made, NullProgress())
    return made


def written(workspace):
    return {path.name: path.stat().st_mtime_ns for path in workspace.prepared.glob("*/*.npy")}


def test_volumes_are_packed_at_the_studys_spacing_each_with_its_own_shape(workspace):
    prepared = prepare(workspace, PATCHES)
    assert [one.shape for one in prepared.images.files] == [(30, 36, 30)] * 3
    hashes = [item.content_sha256 for item in prepared.items]
    assert hashes == sorted(hashes)
    own = DataSection(modality="ct", dims=3, image_size=16, spacing_mm=[3.0, 1.5, 1.0])
    packed = prepare(workspace, own).images.files[0].values()
    raw = np.asarray(ArrayCache(workspace.cache).get(prepared.items[0].content_sha256), np.float64)
    np.testing.assert_allclose(packed, ((raw + 1000) / 2000).clip(0, 1) * 65_535, atol=1)


def test_a_window_makes_its_ends_0_and_1(workspace):
    own = {"modality": "ct", "dims": 3, "image_size": 16, "spacing_mm": [3.0, 1.5, 1.0]}
    prepared = prepare(workspace, DataSection(**own, window_hu=[-1010, -990]))
    raw = np.asarray(ArrayCache(workspace.cache).get(prepared.items[0].content_sha256), np.float64)
    packed = prepared.images.files[0].values()
    np.testing.assert_allclose(packed, ((raw + 1010) / 20).clip(0, 1) * 65_535, atol=1)
    cells = prepared.images.files[0].cells()
    usual = prepare(workspace, DataSection(**own)).images.files[0].cells()
    assert np.array_equal(cells, usual), "what shows something does not hang on the window"


def test_patches_are_drawn_where_there_is_tissue_and_not_in_the_air(workspace):
    small = DataSection(modality="ct", dims=3, image_size=8, spacing_mm=1.0)
    volumes = prepare(workspace, small).images
    rows = np.zeros(100, np.int64)
    blocks = volumes.blocks(rows, volumes.random_origins(rows, np.random.default_rng(0)))
    assert blocks.shape == (100, 1, 10, 10, 10)
    shown = (blocks > 0.25 * 65_535).mean((1, 2, 3, 4))
    anywhere = np.random.default_rng(0).integers(0, np.array([20, 26, 20]) + 1, (100, 3))
    assert shown.mean() > 1.3 * (volumes.blocks(rows, anywhere) > 0.25 * 65_535).mean()


def test_slices_fill_the_image_by_millimetres_and_become_images(workspace):
    volumes = prepare(workspace, SLICES).images
    assert [one.shape for one in volumes.files] == [(10, 20, 17)] * 3, "36 mm fill 20 pixels, 30 mm 17"
    blocks = drawn(volumes, np.array([0, 2]), np.random.default_rng(0))
    assert blocks.shape == (2, 1, 20, 20)
    shows = volumes.covering_origins(0)
    assert 0 < len(shows) < 10, "slices at the ends are air"


def test_a_second_call_packs_nothing_and_neither_does_another_size_of_patch(workspace):
    prepare(workspace, PATCHES)
    before = written(workspace)
    assert len(before) == 6
    prepare(workspace, PATCHES)
    prepare(workspace, PATCHES.model_copy(update={"image_size": 24}))
    assert written(workspace) == before


def test_a_call_that_was_killed_goes_on_with_the_volumes_that_are_left(workspace, monkeypatch):
    pack, done = volume_packing._pack, []

    def dies(one, *more):
        if done:
            raise KeyboardInterrupt
        done.append(one)
        pack(one, *more)

    monkeypatch.setattr(volume_packing, "usable_cores", lambda: 1)
    monkeypatch.setattr(volume_packing, "_pack", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(workspace, PATCHES)
    before = written(workspace)
    assert len(before) == 2
    monkeypatch.setattr(volume_packing, "_pack", pack)
    prepared = prepare(workspace, PATCHES)
    after = written(workspace)
    assert {name: after[name] for name in before} == before
    assert len(after) == 6
    assert len(prepared.images) == 3


def test_a_volume_without_its_cells_was_not_finished_and_is_packed_again(workspace):
    first = prepare(workspace, PATCHES).images.files[0]
    whole = first.values().copy()
    cells_of(first.path).unlink()
    first.path.write_bytes(b"half")
    assert np.array_equal(prepare(workspace, PATCHES).images.files[0].values(), whole)


def test_an_archive_that_grows_has_its_new_volume_packed_alone_and_what_is_gone_goes(
    workspace, write_series, tmp_path
):
    prepare(workspace, PATCHES)
    before = written(workspace)
    write_series(tmp_path / "dicom" / "new", body(9), spacing_mm=(3.0, 1.5, 1.0), **HU)
    index_archive(tmp_path / "dicom", workspace, NullProgress())
    assert len(prepare(workspace, PATCHES).images) == 4
    after = written(workspace)
    assert {name: after[name] for name in before} == before
    shutil.rmtree(tmp_path / "dicom" / "new")
    index_archive(tmp_path / "dicom", workspace, NullProgress())
    assert len(prepare(workspace, PATCHES).images) == 3
    assert written(workspace) == before
    assert len(list(workspace.prepared.glob("*/sets/*"))) == 1


def test_the_number_of_threads_changes_no_bit(workspace, monkeypatch):
    made = []
    for cores in (1, 3):
        shutil.rmtree(workspace.prepared, ignore_errors=True)
        monkeypatch.setattr(volume_packing, "usable_cores", lambda cores=cores: cores)
        made.append([one.path.read_bytes() for one in prepare(workspace, PATCHES).images.files])
    assert made[0] == made[1]


def test_the_disk_is_looked_at_first_and_what_is_packed_is_told(workspace, monkeypatch, capsys):
    held = holding_of(workspace, PATCHES)
    values = 3 * 30 * 36 * 30 * 2
    assert held.images == 3
    assert values < held.packed_bytes == held.lacking_bytes < 1.1 * values
    monkeypatch.setattr(volume_packing, "free_disk_bytes", lambda folder: held.lacking_bytes - 1)
    with pytest.raises(
        DataError, match=r"3 volumes at 1 x 1 x 1 mm take 0.000195 GB, and 0.000195 GB .* larger data.spacing"
    ):
        prepare(workspace, PATCHES)
    assert not list(workspace.prepared.glob("*/*.npy"))
    monkeypatch.setattr(volume_packing, "free_disk_bytes", lambda folder: held.lacking_bytes)
    prepare(workspace, PATCHES)
    assert "packing 3 volumes at 1 x 1 x 1 mm: 0.000195 GB of" in capsys.readouterr().err
    assert holding_of(workspace, PATCHES).lacking_bytes == 0
    taken = sum(path.stat().st_size for path in workspace.prepared.glob("*/*.npy"))
    assert taken == pytest.approx(held.packed_bytes, rel=0.05)


def test_a_patch_larger_than_every_volume_is_refused_in_one_line(workspace):
    with pytest.raises(
        DataError,
        match=r"patch of 48 x 48 x 48 voxels at 1 x 1 x 1 mm is larger than every volume .* 30 x 36 x 30",
    ):
        prepare(workspace, PATCHES.model_copy(update={"image_size": 48}))
    prepared = prepare(workspace, PATCHES.model_copy(update={"image_size": 32}))
    rows = np.arange(3)
    origins = prepared.images.random_origins(rows, np.random.default_rng(0))
    assert cut(prepared.images, rows, origins, 0).shape == (3, 1, 40, 40, 40), "padded where it is smaller"


def test_a_damaged_volume_is_told(workspace):
    volumes = prepare(workspace, PATCHES).images
    volumes.files[1].path.write_bytes(volumes.files[1].path.read_bytes()[:-10])
    with pytest.raises(DamagedError, match="missing or damaged"):
        prepare(workspace, PATCHES)
    volumes.files[2].path.unlink()
    with pytest.raises(DamagedError, match="missing or damaged"):
        volumes.blocks(np.array([2]), np.zeros((1, 3), np.int64))


def test_a_study_of_images_on_volumes_is_told_of_slices(workspace):
    with pytest.raises(
        DataError, match=r"ct in 2D, the site has ct in 3D; .* or write `data.cut = \"slices\"`"
    ):
        prepare(workspace, DataSection(modality="ct", image_size=16))
    with pytest.raises(DataError, match="asks for slices of volumes of mr, the site has ct in 3D"):
        prepare(workspace, DataSection(modality="mr", cut="slices", image_size=16))


def test_two_copies_of_a_volume_share_a_file(workspace, write_series, tmp_path):
    before = holding_of(workspace, PATCHES)
    write_series(tmp_path / "dicom" / "copy", body(1), spacing_mm=(3.0, 1.5, 1.0), PatientID="another", **HU)
    index_archive(tmp_path / "dicom", workspace, NullProgress())
    held = holding_of(workspace, PATCHES)
    assert (held.images, held.packed_bytes) == (4, before.packed_bytes)
    assert len({one.path for one in prepare(workspace, PATCHES).images.files}) == 3


def test_volumes_of_several_sites_stay_where_they_lie(workspace):
    volumes = prepare(workspace, PATCHES).images
    both = joined([volumes.of_rows(np.array([2, 0])), volumes.of_rows(np.array([1]))])
    assert [one.path for one in both.files] == [volumes.files[row].path for row in (2, 0, 1)]


def test_the_status_names_what_is_packed(workspace):
    prepare(workspace, PATCHES)
    prepare(workspace, SLICES)
    prepare(workspace, DataSection(modality="ct", dims=3, cut="whole", image_size=16, window_hu=[-160, 240]))
    lines = [line for line in status_lines(site_status(workspace)) if line.startswith("prepared:")]
    assert [line.rsplit(",", 1)[0] for line in lines] == [
        "prepared: ct, whole volumes at 20px",
        "prepared: ct, volumes for patches at 1x1x1mm",
        "prepared: ct, volumes for slices at 20px",
    ]


def sparse_volume(path, shape):
    """A file that takes no disk: its values are holes, which read as 0."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, {"descr": "<u2", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + int(np.prod(shape)) * 2)
    np.save(cells_of(path), np.arange(np.prod([-(-edge // 8) for edge in shape]), dtype=np.int32))
    return VolumeFile.at(path)


def test_memory_does_not_grow_with_the_size_of_a_volume(tmp_path):
    geometry = Geometry.of(DataSection(modality="ct", dims=3, image_size=32))
    rows, held = np.zeros(16, np.int64), {}
    for name, shape in {"small": (60, 128, 128), "large": (2000, 512, 512)}.items():
        volumes = Volumes((sparse_volume(tmp_path / f"{name}.npy", shape),), geometry)
        peaks.forget_peak()
        before = peaks.resident_bytes()
        for seed in range(20):
            volumes.blocks(rows, volumes.random_origins(rows, np.random.default_rng(seed)))
        held[name] = peaks.peak_bytes() - before
    assert held["large"] < held["small"] + 100e6, "of a volume of a gigabyte"
