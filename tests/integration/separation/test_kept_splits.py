"""A run keeps its split, and nobody whom an encoder was trained on is tested with it."""

import json

import pydicom
import pytest

from hilum.client.data.kept_split import KeptSplits
from hilum.client.data.site_data import open_run, open_site
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.workspace import Workspace
from hilum.common.config import load_study
from hilum.common.errors import RunError
from hilum.common.progress import NullProgress
from hilum.simulations.archives import find_sites
from hilum.simulations.report import write_report
from hilum.simulations.run import simulate
from two_sites import contents, copy_all, other_names, rows_of, write_rows

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
