"""Pictures and NIfTI files become items like those of DICOM."""

import json
import sqlite3

import nibabel
import numpy as np
import pytest
from PIL import Image

from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.formats.nifti import open_nifti
from hilum.client.intake.formats.not_dicom import is_folder_file
from hilum.client.intake.indexing.folder_file import folder_job, folder_row, take_folder_file
from hilum.client.intake.instance import FAMILIES
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import ACCEPTED, Catalogue, FileRow
from hilum.client.state.labels import read_labels
from hilum.client.state.workspace import Workspace
from hilum.common.errors import LabelError
from hilum.common.progress import NullProgress

SHAPE = (12, 17)


def grey8():
    return np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


def taken(source, relative, family, names, cache):
    """The items of one file, read as an index does it."""
    with DecodePool(1) as pool:
        (result,) = pool.map([folder_job(source / relative, family)])
    return take_folder_file(result, relative, family, names, cache)


@pytest.fixture
def folder(tmp_path):
    """A site whose folder holds a picture, a volume and a series of two time points."""
    source, workspace = tmp_path / "ZZPHI", Workspace(tmp_path / "state")
    (source / "sub").mkdir(parents=True)
    Image.fromarray(grey8()).save(source / "sub" / "ZZPHI.png")
    rng, ras = np.random.default_rng(1), np.diag([-1.0, -1, 2, 1])
    for name, shape in (("v.nii.gz", (9, 8, 7)), ("t.nii", (9, 8, 7, 2))):
        nibabel.save(nibabel.Nifti1Image(rng.integers(0, 99, shape).astype(np.int16), ras), source / name)
    names, cache = workspace.pseudonyms(), ArrayCache(workspace.cache)
    catalogue = Catalogue(workspace.catalogue)
    for path in sorted(source.rglob("*.*")):
        relative = str(path.relative_to(source))
        family = "radiograph" if path.suffix == ".png" else "mr"
        items = taken(source, relative, family, names, cache)
        catalogue.record([folder_row(relative, "1", ACCEPTED, names)], items)
    return source, workspace, catalogue


def test_files_become_items_of_the_catalogue_and_no_name_stays(folder):
    _, workspace, catalogue = folder
    image, *volumes = sorted(catalogue.items(), key=lambda item: item.kind)
    assert (image.kind, image.family, image.units, image.shape) == ("image", "radiograph", "display", SHAPE)
    assert len(volumes) == 3
    assert len({item.item_key for item in volumes}) == 3
    assert len({item.patient_key for item in volumes}) == 2
    for item in volumes:
        assert (item.shape, item.spacing_mm, item.units) == ((7, 8, 9), (2, 1, 1), "arbitrary")
    assert catalogue.counts().instances == 3
    for path in workspace.folder.rglob("*"):
        assert not path.is_file() or b"ZZPHI" not in path.read_bytes()


def test_a_file_that_is_gone_takes_its_items_along(folder):
    _, workspace, catalogue = folder
    names = workspace.pseudonyms()
    for name in ("t.nii", "sub/ZZPHI.png"):
        key = names.of("file", name)
        catalogue.record([], forget_files=[key], forget_series=[key])
    assert [item.kind for item in catalogue.items()] == ["volume"]


def test_labels_are_tied_to_files_by_their_relative_name(folder, tmp_path):
    _, workspace, catalogue = folder
    table = tmp_path / "labels.csv"
    table.write_text("file,patient,label\n./sub/ZZPHI.png,P1,yes\nv.nii.gz,P2,no\nt.nii,P2,no\n")
    labels = read_labels(table, "label", catalogue, workspace.pseudonyms())
    assert sorted(labels.label_of.values()) == ["no", "no", "no", "yes"]
    assert len(set(labels.patient_of.values())) == 2
    table.write_text("file,patient,label\nother.png,P1,yes\n")
    with pytest.raises(LabelError, match="line 2: its file is in no indexed file"):
        read_labels(table, "label", catalogue, workspace.pseudonyms())


def test_masks_and_boxes_are_tied_to_files_by_their_relative_name(folder, tmp_path):
    _, workspace, catalogue = folder
    marks = tmp_path / "marks"
    marks.mkdir()
    mask = np.zeros((9, 8, 7), np.uint8)
    mask[2:5, 1:4, 3] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([-1.0, -1, 2, 1])), marks / "v.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask * 2, np.diag([-1.0, -1, 2, 1])), marks / "other.nii.gz")
    (marks / "pairs.csv").write_text("file,mask\nv.nii.gz,other.nii.gz\n")
    (marks / "boxes.csv").write_text("file,label,x,y,width,height\nsub\\ZZPHI.png,mass,1,2,3,4\n")
    report = annotate(marks, workspace, LabelMap(), NullProgress())
    assert (report.masks, report.boxes, report.skipped) == (2, 1, {})
    found = {one.label: one.place for one in catalogue.annotations()}
    assert found == {"1": (3, 1, 2), "2": (3, 1, 2), "mass": (1, 2, 3, 4)}
    (marks / "pairs.csv").write_text("file,mask\nt.nii,other.nii.gz\n")
    assert annotate(marks, workspace, LabelMap(), NullProgress()).skipped == {
        "annotates_one_of_several_images": 1
    }


@pytest.mark.parametrize(
    ("name", "family", "reason"),
    [
        ("v.nii.gz", "radiograph", "other_modality"),
        ("thin.nii", "mr", "too_few_slices"),
        ("flat.nii", "mr", "constant_pixels"),
    ],
)
def test_files_that_the_family_can_not_be_made_of_give_reasons(folder, tmp_path, name, family, reason):
    source, workspace, _ = folder
    thin = np.arange(72, dtype=np.int16).reshape(9, 8, 1)
    nibabel.save(nibabel.Nifti1Image(thin, np.eye(4)), source / "thin.nii")
    nibabel.save(nibabel.Nifti1Image(np.ones((9, 8, 7), np.int16), np.eye(4)), source / "flat.nii")
    with pytest.raises(Skip) as caught:
        taken(source, name, family, workspace.pseudonyms(), ArrayCache(tmp_path / "cache"))
    assert caught.value.reason.value == reason


def test_only_names_of_known_kinds_are_folder_files(tmp_path):
    names = {"a.nii", "a.NII.GZ", "b.png", "c.JPG", "d.tiff", "e.dcm", "f.gz", "g"}
    assert {name for name in names if is_folder_file(tmp_path / name)} == names - {"e.dcm", "f.gz", "g"}


@pytest.fixture
def research(tmp_path):
    """Two volumes, a picture in colour, a broken picture and a text."""
    folder = tmp_path / "research"
    folder.mkdir()
    rng = np.random.default_rng(2)
    for name in ("a.nii.gz", "b.nii"):
        nibabel.save(
            nibabel.Nifti1Image(rng.integers(0, 99, (6, 5, 4)).astype(np.int16), np.eye(4)), folder / name
        )
    Image.fromarray(rng.integers(0, 255, (8, 9, 3)).astype(np.uint8)).save(folder / "c.png")
    (folder / "d.png").write_bytes((folder / "c.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("hello")
    return folder


def index_json(run_hilum, *words, code=0):
    done = run_hilum("site", "index", *words, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_a_research_folder_is_indexed_by_what_made_it(run_hilum, research):
    assert index_json(run_hilum, research, code=3)["skipped"] == {"not_dicom": 1, "picture_or_nifti": 4}
    counts = index_json(run_hilum, research, "--images", "mr")
    assert (counts["files"], counts["instances"], counts["volumes"]) == (5, 2, 2)
    assert sum(counts["skipped"].values()) == 3
    assert counts["skipped"]["not_dicom"] == 1
    again = index_json(run_hilum, research, "--images", "mr")
    assert {**counts, "decoded": again["decoded"]} == again
    counts = index_json(run_hilum, research, "--images", "photograph")
    assert (counts["instances"], counts["volumes"]) == (1, 0), "the picture now, and no volume"
    assert counts["skipped"] == {"damaged_file": 1, "not_dicom": 1, "other_modality": 2}


def test_a_folder_of_pictures_says_how_they_are_taken_in(run_hilum, research):
    done = run_hilum("site", "index", research)
    assert done.returncode == 3
    assert "4 are pictures or NIfTI files" in done.stderr
    asked = " ".join(run_hilum("site", "index", "--help").stdout.split())
    for family in FAMILIES:
        assert family in done.stderr
        assert family in asked


def test_a_compressed_volume_is_read_whatever_its_name(tmp_path):
    volume = nibabel.Nifti1Image(np.arange(9 * 8 * 7, dtype=np.int16).reshape(9, 8, 7), np.eye(4))
    nibabel.save(volume, tmp_path / "a.nii")
    nibabel.save(volume, tmp_path / "b.nii.gz")
    (tmp_path / "c.nii").write_bytes((tmp_path / "b.nii.gz").read_bytes())
    (tmp_path / "d.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    voxels = []
    for name in ("a.nii", "b.nii.gz", "c.nii", "d.nii.gz"):
        with open_nifti(tmp_path / name) as file:
            [one] = file.volumes()
            voxels.append(one.stored.copy())
    assert all(np.array_equal(one, voxels[0]) for one in voxels)


def test_a_picture_of_ct_has_no_units(tmp_path):
    with pytest.raises(Skip, match=Reason.NO_UNITS):
        folder_job(tmp_path / "slice.png", "ct")


def test_a_research_volume_that_is_gone_leaves_the_catalogue(run_hilum, research):
    index_json(run_hilum, research, "--images", "ct")
    (research / "b.nii").unlink()
    counts = index_json(run_hilum, research)
    assert (counts["files"], counts["instances"], counts["volumes"], counts["removed"]) == (4, 1, 1, 1)


def test_an_unknown_family_is_one_line(run_hilum, research):
    done = run_hilum("site", "index", research, "--images", "xray")
    assert done.returncode == 3
    assert done.stderr.startswith("error: there is no such family; --images takes one of radiograph, ")


def test_a_catalogue_of_an_older_version_is_filled_again(tmp_path):
    path = tmp_path / "catalogue.sqlite"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE files (file_key TEXT PRIMARY KEY, identity TEXT)")
        old.execute("INSERT INTO files VALUES ('a', 'b')")
    catalogue = Catalogue(path)
    assert catalogue.files() == {}
    catalogue.record([FileRow("a", "1", "not_dicom")])
    catalogue.close()
    again = Catalogue(path)
    assert list(again.files()) == ["a"]
    again.close()
