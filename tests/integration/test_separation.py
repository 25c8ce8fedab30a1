"""Who is tested is never trained on: across sites, across an interruption, and what the report says of it."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from hilum.client.data.kept_split import KeptSplits
from hilum.client.data.site_data import open_run, open_site
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.workspace import Workspace
from hilum.common.config import load_study
from hilum.common.errors import DataError, LabelError, RunError
from hilum.common.progress import NullProgress
from hilum.simulations.archives import find_sites, index_sites, open_sites
from hilum.simulations.claims import claims_of
from hilum.simulations.overlap import find_overlap, separation, set_apart
from hilum.simulations.report import write_report
from hilum.simulations.run import simulate


@pytest.fixture
def two(archives, tmp_path):
    """Two hospitals without anything in common, that a test may change."""
    for name in ("site-0", "site-1"):
        shutil.copytree(archives / name, tmp_path / "two" / name)
    return tmp_path / "two"


@pytest.fixture
def study(study_file):
    return load_study(study_file(federation={"sites": 2, "rounds": 2}))


def rows_of(site):
    with (site / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def write_rows(site, rows):
    with (site / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def opened(folder, study, home):
    sites = find_sites(folder, home)
    index_sites(sites, NullProgress())
    return open_sites(sites, study)


def contents(data, rows):
    return {data.origin.prepared.items[row].content_sha256 for row in rows.tolist()}


def copy_all(two, change=lambda dataset: None):
    """Put all of site-1's images at site-0 too, under the same or other names."""
    renamed = {}
    for path in sorted((two / "site-1" / "dicom").iterdir()):
        dataset = pydicom.dcmread(path)
        before = dataset.SOPInstanceUID
        change(dataset)
        renamed[before] = dataset.SOPInstanceUID
        dataset.save_as(two / "site-0" / "dicom" / f"copy-{path.name}")
    return [{**row, "sop_instance_uid": renamed[row["sop_instance_uid"]]} for row in rows_of(two / "site-1")]


def other_names(dataset):
    """Another patient, study, series and instance, as far as names go."""
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(dataset, name, pydicom.uid.generate_uid(entropy_srcs=[getattr(dataset, name), "other"]))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID = f"OTHER-{dataset.PatientID}"


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


CHANGES = {
    "labels": lambda site, rows: write_rows(
        site, [{**row, "label": 1 - int(row["label"])} if n % 3 else row for n, row in enumerate(rows)]
    ),
    "labels that are gone": lambda site, rows: write_rows(
        site, [{**row, "label": "NA" if n < len(rows) // 2 else row["label"]} for n, row in enumerate(rows)]
    ),
    "patients": lambda site, rows: write_rows(
        site, [{**row, "patient": f"Q{n // 4}"} for n, row in enumerate(rows)]
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_run_keeps_its_split_whatever_becomes_of_the_labels(two, study, tmp_path, what):
    [site, _] = find_sites(two, tmp_path / "home")
    index_archive(site.data.dicom, Workspace(site.state.folder), NullProgress())
    before = open_run(site, study, "run")
    assert before.notes == ()
    CHANGES[what](two / "site-0", rows_of(two / "site-0"))
    after = open_run(site, study, "run")
    assert not contents(after, after.split.test) & contents(before, before.split.pretrain)
    assert contents(after, after.split.pretrain) == contents(before, before.split.pretrain)
    [note] = after.notes
    assert note.startswith("since this run began ")
    assert note.endswith("its split is kept: nobody changes sides")
    if what != "labels that are gone":  # of these phantoms, none changes sides by it
        anew = open_site(site, study, anew=True)
        assert contents(anew, anew.split.test) & contents(before, before.split.pretrain), (
            "or it shows nothing"
        )
    assert contents(open_site(site, study), open_site(site, study).split.test) <= contents(
        before, before.split.test
    )


def test_images_that_come_or_go_while_a_run_goes_on_move_nobody(two, study, tmp_path):
    [site, other] = find_sites(two, tmp_path / "home")
    workspace = Workspace(site.state.folder)
    index_archive(site.data.dicom, workspace, NullProgress())
    before = open_run(site, study, "run")
    gone = min(site.data.dicom.iterdir())
    uid = pydicom.dcmread(gone).SOPInstanceUID
    gone.unlink()
    added = copy_all(two, other_names)
    write_rows(
        two / "site-0", [row for row in rows_of(two / "site-0") if row["sop_instance_uid"] != uid] + added
    )
    index_archive(site.data.dicom, workspace, NullProgress())
    after = open_run(site, study, "run")
    assert contents(after, after.split.pretrain) <= contents(before, before.split.pretrain)
    assert contents(after, after.split.test) <= contents(before, before.split.test)
    [note] = after.notes
    assert f"{len(added)} images came and are left out, 1 image went" in note
    assert other.site.name == "site-1"


def test_a_killed_run_goes_on_with_its_split_and_says_what_changed(two, study, tmp_path, capsys, monkeypatch):
    import hilum.simulations.run as module

    out, home = tmp_path / "run", tmp_path / "home"
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_previews", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            simulate(study, two, out, home)
    (out / "results.json").unlink()
    [site, _] = find_sites(two, home)
    before = open_site(site, study)
    CHANGES["labels"](two / "site-0", rows_of(two / "site-0"))
    results = simulate(study, two, out, home, resume=True)
    assert "site-0: since this run began" in capsys.readouterr().err
    after = open_site(site, study)
    assert not contents(after, after.split.test) & contents(before, before.split.pretrain)
    assert results["separation"]["tested_and_trained"] == {"patients": 0, "images": 0}
    page = write_report(out).read_text()
    assert "Test patients were set aside when the run began" in page
    assert "changed their label; its split is kept" in page
    sha256 = json.loads((out / "encoder" / "manifest.json").read_text())["encoder_sha256"]
    assert KeptSplits(Workspace(site.state.folder)).of_encoder(sha256).encoder == sha256


def test_a_run_does_not_go_on_where_it_is_not_known_whom_it_set_aside(two, study, tmp_path):
    out = tmp_path / "run"
    simulate(study, two, out, tmp_path / "home")
    with pytest.raises(
        RunError, match="not known here whom this run set aside for testing at site-0, site-1"
    ):
        simulate(study, two, out, tmp_path / "another home", resume=True)


def test_nobody_whom_an_encoder_was_trained_on_is_tested_with_it(two, study, study_file, tmp_path):
    [site, _] = find_sites(two, tmp_path / "home")
    index_archive(site.data.dicom, Workspace(site.state.folder), NullProgress())
    before = open_run(site, study, "run")
    kept = KeptSplits(Workspace(site.state.folder))
    other = load_study(
        study_file("other.toml", study={"seed": 99}, federation={"sites": 2}, evaluation={"test_share": 0.6})
    )
    alone = open_site(site, other, anew=True)
    assert contents(alone, alone.split.test) & contents(before, before.split.pretrain), (
        "or the test shows nothing"
    )
    for encoder in ("unknown", "known"):
        measured = open_site(site, other, encoder="made")
        assert not contents(measured, measured.split.test) & contents(before, before.split.pretrain)
        assert contents(measured, measured.split.test) == contents(before, before.split.test)
        assert "are not tested" in measured.notes[0]
        kept.name_encoder("run", "made")
        assert kept.of_run("run").encoder == "made", encoder
    stranger = open_site(site, other, encoder="another")
    assert "is not known at this site" in stranger.notes[0]


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
    [first, _] = results["labels"]["sites"]
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
