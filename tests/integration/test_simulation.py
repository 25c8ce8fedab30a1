"""Whole federations on phantoms: what must be the same bits, and what must survive being killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from hilum.client.data.site_data import open_site
from hilum.client.disclosure.run_ledger import RunLedger
from hilum.client.pretraining.site import pretrain_alone
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.config import load_study
from hilum.common.errors import DataError
from hilum.common.export import read_encoder
from hilum.common.methods import build_method
from hilum.common.methods.parts import encoder_part, federated_manifest
from hilum.common.weights import sha256_of
from hilum.simulations.archives import find_sites
from hilum.simulations.run import simulate

HILUM = str(Path(sys.executable).parent / "hilum")
PRETRAIN_ONLY = {"tasks": {}, "federation": {"rounds": 3}}


def encoder_sha256(run):
    return json.loads((run / "encoder" / "manifest.json").read_text())["encoder_sha256"]


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """One state folder for all simulations here, as a researcher has."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def bare_study(study_file):
    def write(**changes):
        table = {"tasks": {"classification": {"label": "label"}}, **changes}
        path = study_file(**table)
        text = path.read_text().replace('[tasks.classification]\nlabel = "label"\n', "")
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    "method", [{"name": "mae", "decoder_width": 32}, {"name": "simclr"}], ids=["mae", "simclr"]
)
def test_a_study_runs_from_dicom_to_a_report(archives, home, study_file, tmp_path, method):
    study = load_study(
        study_file(
            method=method,
            evaluation={
                "protocols": ["knn", "linear", "frozen", "lora", "finetune"],
                "arms": ["federated", "local", "centralised", "scratch", "random", "raw"],
            },
        )
    )
    results = simulate(study, archives, tmp_path / "run", home)
    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    assert stored == results
    assert {"version", "study", "seed", "sites", "rounds", "privacy", "evaluation"} <= set(results)
    rows = results["evaluation"]
    keys = {
        "site",
        "task",
        "protocol",
        "label_fraction",
        "arm",
        "metric",
        "value",
        "ci_low",
        "ci_high",
        "n_patients",
        "note",
    }
    assert all(set(row) == keys for row in rows)
    assert {row["arm"] for row in rows} == {"federated", "local", "centralised", "scratch", "random", "raw"}
    assert {row["site"] for row in rows} == {"site-0", "site-1", "site-2"}
    assert all(row["ci_low"] <= row["ci_high"] and 0 <= row["value"] <= 1 for row in rows)
    for name in (
        "study.resolved.toml",
        "environment.json",
        "rounds.jsonl",
        "report.html",
        "encoder/MODEL_CARD.md",
    ):
        assert (tmp_path / "run" / name).exists()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert read_encoder(tmp_path / "run" / "encoder", study).sha256 == encoder_sha256(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert encoder_sha256(tmp_path / "run") in page
    assert not list(home.glob("simulations/*/*/runs/*")), "local state of a finished run is gone"


def test_a_study_that_picks_its_round_leaves_both_encoders_and_says_which_it_took(
    archives, home, study_file, tmp_path
):
    study = load_study(
        study_file(
            training={"select": "knn", "base_learning_rate": 0.1},
            federation={"rounds": 3},
            evaluation={"arms": ["federated", "local", "centralised", "raw"]},
        )
    )
    results = simulate(study, archives, tmp_path / "run", home)
    scores = [record["score"] for record in results["rounds"]]
    chosen = results["selection"]
    assert chosen["by"] == "knn"
    assert chosen["score"] == max(scores) == scores[chosen["round"] - 1]
    for record in results["rounds"]:
        assert set(record["scores"]) == {"site-0", "site-1", "site-2"}
        assert record["score"] == pytest.approx(sum(record["scores"].values()) / 3)
    taken, last = (
        json.loads((tmp_path / "run" / name / "manifest.json").read_text())
        for name in ("encoder", "encoder-last")
    )
    assert (taken["rounds"], last["rounds"]) == (chosen["round"], 3)
    assert chosen["last_encoder_sha256"] == last["encoder_sha256"]
    assert (taken["encoder_sha256"] == last["encoder_sha256"]) == (chosen["round"] == 3)
    assert any("on validation patients" in note for note in results["notes"])
    assert {row["arm"] for row in results["evaluation"]} == {"federated", "local", "centralised", "raw"}


def test_the_same_seed_gives_the_same_encoder_and_another_does_not(archives, bare_study, home, tmp_path):
    runs = {}
    for name, changes in {"a": {}, "b": {}, "c": {"study": {"seed": 12}}}.items():
        simulate(
            load_study(bare_study(**changes)),
            archives,
            tmp_path / name,
            home if name == "a" else tmp_path / "other",
        )
        runs[name] = encoder_sha256(tmp_path / name)
    assert runs["a"] == runs["b"], "even with other pseudonyms"
    assert runs["a"] != runs["c"]


@pytest.mark.parametrize("method", ["mae", "simclr"])
def test_a_federation_of_one_site_is_local_training(archives, bare_study, home, tmp_path, method):
    shutil.copytree(archives / "site-1", tmp_path / "one" / "site-1")
    study = load_study(bare_study(method={"name": method}, federation={"sites": 1, "rounds": 3}))
    simulate(study, tmp_path / "one", tmp_path / "run", home)
    [site] = find_sites(tmp_path / "one", home)
    weights = pretrain_alone(open_site(site, study), study, tmp_path / "alone", device="cpu").weights
    assert sha256_of(encoder_part(federated_manifest(build_method(study)), weights)) == encoder_sha256(
        tmp_path / "run"
    )


@pytest.mark.parametrize(
    "rounds", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_run_killed_in_any_round_and_resumed_gives_the_same_encoder(
    archives, bare_study, home, tmp_path, rounds
):
    path = bare_study(
        federation={"rounds": 3}, training={"batch_size": 4, "local_epochs": 6, "checkpoint_minutes": 0.0}
    )
    simulate(load_study(path), archives, tmp_path / "whole", home)
    out = tmp_path / "killed"
    command = [HILUM, "simulate", path, "--archives", archives, "--out", out, "--home", tmp_path / "home"]
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_in_round(child, out, rounds)
    assert not (out / "results.json").exists()
    if (out / "study.resolved.toml").exists():
        command.append("--resume")
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert encoder_sha256(out) == encoder_sha256(tmp_path / "whole")
    assert len((out / "rounds.jsonl").read_text().splitlines()) == 3


def kill_in_round(child, out, rounds):
    """SIGKILL once `rounds` rounds are done and the next is under way."""

    def lines():
        path = out / "rounds.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    until = time.monotonic() + 120
    while time.monotonic() < until and child.poll() is None:
        started = (out / "environment.json").exists()
        if started and lines() >= rounds:
            time.sleep(0.15)
            break
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def test_ray_gives_the_same_encoder_bit_for_bit(archives, bare_study, tmp_path):
    pytest.importorskip("ray", reason="needs the simulation extra")
    path = bare_study()
    for backend in ("process", "ray"):
        command = [
            HILUM,
            "simulate",
            path,
            "--archives",
            archives,
            "--out",
            tmp_path / backend,
            "--backend",
            backend,
            "--json",
        ]
        environment = {**os.environ, "HILUM_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [str(c) for c in command], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["simulation"]["backend"] == backend
    assert encoder_sha256(tmp_path / "ray") == encoder_sha256(tmp_path / "process")


def test_a_site_that_can_not_be_evaluated_is_noted_and_the_run_stands(archives, home, study_file, tmp_path):
    shutil.copytree(archives, tmp_path / "archives")
    labels = tmp_path / "archives" / "site-1" / "labels.csv"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([lines[0], *[line.rsplit(",", 1)[0] + ",0" for line in lines[1:]]]) + "\n")
    results = simulate(load_study(study_file()), tmp_path / "archives", tmp_path / "run", home)
    assert {row["site"] for row in results["evaluation"]} == {"site-0", "site-2"}
    lifted, note = results["notes"]
    assert lifted.startswith("the threshold of patients was lifted from 11 to ")
    assert note.startswith("site-1 was not evaluated: data: ")
    assert "the site's log says why" in note


def test_test_patients_never_reach_pretraining(archives, home, study_file):
    study = load_study(study_file())
    for site in find_sites(archives, home):
        data = open_site(site, study)
        catalogue = Catalogue(site.state.folder / "catalogue.sqlite")
        items = catalogue.items()
        catalogue.close()
        tested = {items[row].patient_key for row in data.split.test}
        trained = {items[row].patient_key for row in data.split.pretrain}
        assert tested
        assert not tested & trained


def test_a_site_of_fewer_patients_than_the_threshold_is_refused_before_anything_is_trained(
    archives, home, study_file, tmp_path
):
    for threshold, what in ((6, "patients would be tested"), (11, "patients would be trained on")):
        study = load_study(study_file(privacy={"min_patients": threshold}))
        with pytest.raises(DataError, match=rf"site-0: \d {what}, .* lower privacy.min_patients"):
            simulate(study, archives, tmp_path / "run", home)
    assert not (tmp_path / "run").exists()


def test_a_simulation_may_begin_again_in_the_place_of_an_earlier_one(
    archives, home, bare_study, tmp_path, monkeypatch
):
    """A run is named for its place and study; what an earlier Hilum's run of that name left does not bind this one."""
    study = load_study(bare_study(federation={"rounds": 1}))
    names = []
    enter = RunLedger.enter
    with monkeypatch.context() as patched:
        patched.setattr(
            RunLedger, "enter", lambda self, *words: names.append(words[0]) or enter(self, *words)
        )
        simulate(study, archives, tmp_path / "run", home)
    first = encoder_sha256(tmp_path / "run")
    for site in find_sites(archives, home):
        with closing(RunLedger(Workspace(site.state.folder).runs)) as ledger:
            ledger.enter(names[0], "the terms of another version")
    shutil.rmtree(tmp_path / "run")
    simulate(study, archives, tmp_path / "run", home)
    assert encoder_sha256(tmp_path / "run") == first
