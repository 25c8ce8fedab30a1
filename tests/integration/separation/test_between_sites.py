"""Whom several sites share is trained on at none of those that test; and a simulation tells what it left out."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from hilum.client.data.site_data import open_site
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError, LabelError
from hilum.common.progress import NullProgress
from hilum.simulations.archives import find_sites, index_sites
from hilum.simulations.claims import claims_of
from hilum.simulations.overlap import find_overlap, separation, set_apart
from hilum.simulations.run import simulate
from two_sites import contents, copy_all, opened, other_names, rows_of, write_rows


def other_pixels(dataset):
    """Another image of the same patient."""
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(dataset, name, pydicom.uid.generate_uid(entropy_srcs=[getattr(dataset, name), "later"]))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress()
    noise = np.random.default_rng(int(dataset.SOPInstanceUID[-9:].replace(".", ""))).integers(
        0, 4000, (dataset.Rows, dataset.Columns)
    )
    dataset.PixelData = noise.astype(np.uint16).tobytes()


def compressed(dataset):
    """The same picture at another size and after a lossy compression, as another patient's."""
    other_names(dataset)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress()
    stored = dataset.pixel_array.astype(float)
    eight = ((stored - stored.min()) / max(np.ptp(stored), 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(eight).resize((96, 96), Image.BILINEAR).save(buffer, "JPEG", quality=60)
    lossy = np.asarray(Image.open(buffer)) / 255 * np.ptp(stored) + stored.min()
    dataset.Rows = dataset.Columns = 96
    dataset.PixelData = lossy.astype(np.uint16).tobytes()


@pytest.mark.parametrize(
    ("change", "label_names"),
    [(lambda dataset: None, "same"), (other_names, "other"), (other_pixels, "same"), (compressed, "other")],
    ids=[
        "the same files",
        "another patient's name",
        "other images of the same patients",
        "lossy and smaller",
    ],
)
def test_whoever_is_tested_at_one_site_is_trained_on_at_none(two, study, tmp_path, change, label_names):
    added = copy_all(two, change)
    if label_names == "other":
        added = [{**row, "patient": f"other {row['patient']}"} for row in added]
    write_rows(two / "site-0", rows_of(two / "site-0") + added)
    data, overlap = opened(two, study, tmp_path / "home")
    people = len({row["patient"] for row in rows_of(two / "site-1")})
    assert overlap.patients == people
    found = separation(data, overlap)
    assert found["tested_and_trained"] == {"patients": 0, "images": 0}
    assert any(found["left_out"].values()), "or the test shows nothing"
    before = [open_site(site, study, anew=True) for site in find_sites(two, tmp_path / "home")]
    assert [len(one.split.test) for one in before] == [len(one.split.test) for one in data], (
        "no test patient is dropped"
    )
    counter = separation(before, find_overlap(before))
    assert counter["tested_and_trained"]["patients"] > 0
    assert not any(claim.good and "set aside" in claim.words for claim in claims_of({"separation": counter}))
    assert any("also trained on" in claim.words for claim in claims_of({"separation": counter}))
    said = [claim.words for claim in claims_of({"separation": found})]
    assert "Test patients were set aside before any pre-training." in said
    assert any(f"{people} patients are at more than one site" in words for words in said)


def test_sites_that_share_nobody_are_split_as_each_alone(two, study, tmp_path):
    data, overlap = opened(two, study, tmp_path / "home")
    assert (overlap.patients, overlap.images, overlap.by_name) == (0, 0, True)
    for one, site in zip(data, find_sites(two, tmp_path / "home"), strict=True):
        alone = open_site(site, study, anew=True)
        assert alone.content_sha256 == one.content_sha256
        assert alone.split.test.tolist() == one.split.test.tolist()
    said = [claim.words for claim in claims_of({"separation": separation(data, overlap)})]
    assert said == [
        "Test patients were set aside before any pre-training.",
        "No patient is at two sites, and no image shows the same as one at another site.",
    ]


def test_pictures_of_one_name_at_two_sites_are_not_one_patients(study, tmp_path):
    rng = np.random.default_rng(3)
    for site in ("site-0", "site-1"):
        (tmp_path / "pictures" / site / "dicom").mkdir(parents=True)
        for n in range(8):
            noise = Image.fromarray(rng.integers(0, 255, (40, 40)).astype(np.uint8))
            noise.save(tmp_path / "pictures" / site / "dicom" / f"{n}.png")
    shutil.copy(tmp_path / "pictures/site-0/dicom/0.png", tmp_path / "pictures/site-1/dicom/copy.png")
    sites = find_sites(tmp_path / "pictures", tmp_path / "home")
    for site in sites:
        workspace = Workspace(site.state.folder)
        workspace.pseudonyms(first=bytes(range(32)))
        index_archive(site.data.dicom, workspace, NullProgress(), images="radiograph")
    overlap = find_overlap([open_site(site, study) for site in sites])
    assert (overlap.by_name, overlap.patients, overlap.images) == (True, 1, 2), "the copy alone"


def test_sites_with_keys_of_their_own_are_not_said_to_share_no_patient(two, study, tmp_path):
    for site in find_sites(two, tmp_path / "home"):
        Workspace(site.state.folder).pseudonyms()
    data, overlap = opened(two, study, tmp_path / "home")
    assert not overlap.by_name
    said = " ".join(claim.words for claim in claims_of({"separation": separation(data, overlap)}))
    assert "No patient is at two sites" not in said
    assert "could not be compared by name" in said


def test_a_site_that_has_nobody_left_is_refused_by_name(two, study, tmp_path):
    sites = find_sites(two, tmp_path / "home")
    index_sites(sites, NullProgress())
    data = [open_site(site, study, anew=True) for site in sites]
    overlap = find_overlap(data)
    everyone = frozenset(
        {(0, number) for number in data[0].split.group.tolist()}
        | {(1, int(data[1].split.group[data[1].split.test[0]]))}
    )
    with pytest.raises(DataError, match=r"site-0: 0 images are left for training .* left out"):
        set_apart(data, study, type(overlap)(0, 1, True, (everyone,)))


def test_the_same_image_of_two_patients_of_a_site_stays_on_one_side(two, study, tmp_path):
    added = [{**row, "patient": f"other {row['patient']}"} for row in copy_all(two, other_names)]
    for path in (two / "site-0" / "dicom").glob("copy-*"):
        shutil.move(path, two / "site-1" / "dicom" / path.name)
    write_rows(two / "site-1", rows_of(two / "site-1") + added)
    data, _ = opened(two, study, tmp_path / "home")
    assert data[1].origin.joined == len(added)
    assert not contents(data[1], data[1].split.test) & contents(data[1], data[1].split.pretrain)
    assert len(np.unique(data[1].split.group)) == len({row["patient"] for row in added})


def test_a_wrong_label_column_ends_a_simulation_before_anything_is_trained(two, study, tmp_path):
    write_rows(
        two / "site-1",
        [{**row, "label": ("Yes", "yes", "No")[n % 3]} for n, row in enumerate(rows_of(two / "site-1"))],
    )
    with pytest.raises(LabelError, match=r"site-1: the column `label` spells .*: 'Yes' \(\d\), 'yes' \(\d\)"):
        simulate(study, two, tmp_path / "run", tmp_path / "home")
    assert not Path(tmp_path / "run").exists()


def test_the_table_is_told_before_the_run_and_is_in_results_and_report(two, study, tmp_path, capsys):
    names = {"site-0": ("pneumonia", "normal"), "site-1": ("Pneumonia", "effusion")}
    for site, words in names.items():
        rows = [{**row, "label": words[int(row["label"])]} for row in rows_of(two / site)]
        rows[0]["label"] = "nan"
        write_rows(two / site, rows)
    results = simulate(study, two, tmp_path / "run", tmp_path / "home")
    told = capsys.readouterr().err
    page = (tmp_path / "run" / "report.html").read_text()
    for words in (
        "`Pneumonia` at site-1; `pneumonia` at site-0",
        "the class `effusion` is at site-1, not at site-0",
        "read as no label: `nan` (1)",
    ):
        assert words in told
        assert words in page
    [first, _] = results["labels"]["classification"]["sites"]
    counted = {line["name"]: line for line in first["lines"]}
    assert set(counted) == {"pneumonia", "normal", None}
    assert sum(
        line[part]["images"] for line in counted.values() for part in ("train", "test", "left_out")
    ) == len(rows_of(two / "site-0"))


def test_what_is_left_out_is_left_out_under_ray_too(two, study_file, tmp_path, run_hilum):
    pytest.importorskip("ray", reason="needs the simulation extra")
    write_rows(two / "site-0", rows_of(two / "site-0") + copy_all(two))
    path = study_file(federation={"sites": 2, "rounds": 2}, evaluation={"arms": ["federated", "raw"]})
    made = {}
    for backend in ("process", "ray"):
        done = run_hilum(
            "simulate", path, "--archives", two, "--out", tmp_path / backend, "--backend", backend
        )
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / backend / "results.json").read_text())
        assert results["separation"]["left_out"]
        assert "are left out of training" in done.stderr
        made[backend] = json.loads((tmp_path / backend / "encoder" / "manifest.json").read_text())[
            "encoder_sha256"
        ]
    assert made["process"] == made["ray"]
