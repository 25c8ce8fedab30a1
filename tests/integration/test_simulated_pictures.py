"""A researcher's pictures and NIfTI files are simulated on as they lie: the study says what they are."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from hilum.client.data.site_data import open_site
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.errors import ConfigError, DataError
from hilum.common.progress import NullProgress
from hilum.simulations.archives import find_sites, index_sites
from hilum.simulations.overlap import find_overlap
from hilum.simulations.research_folders import look_at, with_class_folders


def draw(path, rng, label=0):
    pixels = rng.integers(0, 120, (40, 40)).astype(np.uint8)
    pixels[10:30, 10:30] += np.uint8(100 * label)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Write eight pictures a site, under names made of the number and the label."""

    def write(name_of, sites=2):
        rng = np.random.default_rng(4)
        for site in range(sites):
            for number in range(8):
                draw(tmp_path / "sites" / f"s{site}" / name_of(number, number % 2), rng, number % 2)
        return tmp_path / "sites"

    return write


@pytest.fixture
def opened(tmp_path, make_study):
    """Find, look at and index sites as a simulation does; gives the sites, and what was told."""

    def run(archives, images=None, **changes):
        study, told = make_study(**changes), []
        sites = find_sites(archives, tmp_path / "home")
        holdings = [look_at(site, study, images) for site in sites]
        sites = with_class_folders(sites, holdings, study, told.append)
        reports = index_sites(sites, NullProgress(), [one.images for one in holdings])
        return study, sites, told, reports

    return run


def simulate(run_hilum, study, archives, *words):
    done = run_hilum("simulate", study, "--archives", archives, "--out", "run", *words, "--json")
    return done, json.loads(done.stdout) if done.returncode == 0 else {}


@pytest.mark.parametrize("inside", ["dicom/", ""], ids=["below dicom", "beside the table"])
def test_pictures_with_a_table_are_simulated_on(run_hilum, study_file, pictures, inside):
    archives = pictures(lambda number, _label: f"{inside}{number}.png")
    for site in ("s0", "s1"):
        rows = [f"{number}.png,P{number // 2 * 2 + number % 2},{number % 2}" for number in range(8)]
        (archives / site / "labels.csv").write_text("\n".join(["file,patient,label", *rows]) + "\n")
    done, results = simulate(run_hilum, study_file(federation={"sites": 2, "rounds": 1}), archives)
    assert done.returncode == 0, done.stderr
    assert "s0: 8 pictures and NIfTI files are taken as radiograph" in done.stderr
    assert {row["site"] for row in results["evaluation"]} == {"s0", "s1"}


def test_volumes_in_class_folders_are_simulated_on(run_hilum, study_file, tmp_path):
    rng = np.random.default_rng(4)
    for site in range(2):
        for number in range(8):
            voxels = rng.integers(0, 99, (8, 8, 6)).astype(np.int16)
            voxels[2:6, 2:6] += 200 * (number % 2)
            path = tmp_path / "sites" / f"s{site}" / "AB"[number % 2] / f"{number}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    study = study_file(
        federation={"sites": 2, "rounds": 1},
        data={"modality": "mr", "dims": 3, "image_size": 8},
        encoder={"patch_size": 4},
    )
    done, results = simulate(run_hilum, study, tmp_path / "sites")
    assert done.returncode == 0, done.stderr
    assert "no labels.csv, so each sub-folder is a class" in done.stderr
    assert {row["site"] for row in results["evaluation"]} == {"s0", "s1"}


def test_folders_are_classes_and_the_folders_below_them_patients(pictures, opened):
    def name(number, label):
        below = {0: "P1/", 1: "P1/", 2: "P2/"}.get(number, "")
        return f"{'AB'[label]}/{below}{number}.png" if number < 7 else f"{number}.png"

    study, sites, _told, _reports = opened(pictures(name))
    data = open_site(sites[0], study)
    assert sorted(str(label) for label in data.labels) == ["A"] * 4 + ["B"] * 3 + ["None"]
    people = {}
    for label, group in zip(data.labels, data.split.group.tolist(), strict=True):
        people.setdefault(group, []).append(label)
    assert sorted(map(len, people.values())) == [1] * 6 + [2], "P1 is one patient in both classes"
    assert ["A", "B"] in [sorted(map(str, labels)) for labels in people.values()]


@pytest.mark.parametrize("parts", ["train", "Test", "val"])
def test_parts_of_a_split_are_no_classes(pictures, opened, parts):
    archives = pictures(lambda number, label: f"{[parts, 'other'][label]}/{number}.png")
    with pytest.raises(DataError, match="parts of a split"):
        opened(archives)


def test_folders_of_patients_are_no_classes(pictures, opened):
    archives = pictures(lambda number, _label: f"P{number}/a.png", sites=1)
    rng = np.random.default_rng(5)
    for number in range(8, 21):
        draw(archives / "s0" / f"P{number}" / "a.png", rng)
    with pytest.raises(DataError, match="21 sub-folders are too many for classes"):
        opened(archives)


def test_one_folder_is_no_class(pictures, opened):
    _study, sites, told, _reports = opened(pictures(lambda number, _label: f"images/{number}.png"))
    assert sites[0].data.labels is None
    assert "s0: no labels.csv, and no sub-folders that could be classes: nothing has a label" in told


def test_names_that_a_table_can_not_hold_are_counted(pictures, opened):
    import os

    archives = pictures(lambda number, label: f"{'AB'[label]}/{number}.png")
    rng = np.random.default_rng(6)
    for name in (os.fsdecode(b"A/\xff.png"), "B/new\nline.png", "B/back\\slash.png"):
        draw(archives / "s0" / name, rng)
    study, sites, told, reports = opened(archives)
    assert (
        "s0: no labels.csv, so each sub-folder is a class; 3 have no label, for their names can't stand in a table"
        in told
    )
    assert reports["s0"].counts.instances == 11
    assert sum(label is None for label in open_site(sites[0], study).labels) == 3


def test_pictures_beside_dicom_are_taken_only_if_somebody_says_so(archives, opened, tmp_path):
    import shutil

    shutil.copytree(archives / "site-0", tmp_path / "sites" / "site-0")
    rng = np.random.default_rng(7)
    for number in range(3):
        draw(tmp_path / "sites" / "site-0" / "dicom" / "shots" / f"{number}.png", rng)
    counts = opened(tmp_path / "sites")[3]["site-0"].counts
    assert counts.skipped["picture_or_nifti"] == 3
    told = opened(tmp_path / "sites", images="radiograph")[3]["site-0"].counts
    assert told.instances == counts.instances + 3
    assert opened(tmp_path / "sites")[3]["site-0"].counts == counts, (
        "what an earlier call was told counts no more"
    )


def test_another_family_than_the_study_has_is_refused(pictures, opened):
    with pytest.raises(ConfigError, match=r'--images is mr, .* data\.modality is "radiograph"'):
        opened(pictures(lambda number, _label: f"{number}.png"), images="mr")


def test_pictures_of_one_name_at_two_sites_are_not_one_patient(pictures, opened):
    archives = pictures(lambda number, _label: f"{number}.png")
    for site in ("s0", "s1"):
        rows = [f"{number}.png,{site}-P{number},{number % 2}" for number in range(8)]
        (archives / site / "labels.csv").write_text("\n".join(["file,patient,label", *rows]) + "\n")
    study, sites, _told, _reports = opened(archives)
    overlap = find_overlap([open_site(site, study) for site in sites])
    assert (overlap.by_name, overlap.patients, overlap.images) == (True, 0, 0)
    (archives / "s1" / "labels.csv").write_text((archives / "s0" / "labels.csv").read_text())
    overlap = find_overlap([open_site(site, study) for site in sites])
    assert overlap.patients == 8, "those whom the tables name alike are"


def test_files_of_the_system_beside_pictures_are_no_patients(pictures, opened, tmp_path):
    archives = pictures(lambda number, label: f"{'AB'[label]}/{number}.png")
    (archives / "s0" / "A" / "._0.png").write_bytes(b"\x00\x05\x16\x07" + bytes(90))
    (archives / "s0" / ".DS_Store").write_bytes(b"x")
    (archives / "s0" / "README.md").write_text("x")
    _study, sites, _told, reports = opened(archives)
    assert reports["s0"].counts.skipped == {"not_dicom": 1, "system_file": 2}
    catalogue = Catalogue(Workspace(sites[0].state.folder).catalogue)
    assert len({item.patient_key for item in catalogue.items()}) == 8
    catalogue.close()


def test_a_study_without_a_threshold_is_simulated_with_one_patient(run_hilum, study_file, pictures):
    archives = pictures(lambda number, label: f"{'AB'[label]}/{number}.png")
    path = study_file(federation={"sites": 2, "rounds": 1})
    text = path.read_text()
    path.write_text(text.replace("min_patients = 1\n", ""))
    assert path.read_text() != text
    done, results = simulate(run_hilum, path, archives)
    assert done.returncode == 0, done.stderr
    assert "the study names no threshold, so it is 1 here" in done.stderr
    path.write_text(text.replace("min_patients = 1\n", "min_patients = 11\n"))
    done, _results = simulate(run_hilum, path, archives, "--home", "other")
    assert done.returncode in (3, 4), "a threshold that is named is kept"
    assert results["evaluation"]
