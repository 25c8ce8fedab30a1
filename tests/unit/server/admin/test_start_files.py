"""The weights that a study starts from, on their way from who signs it to the run."""

import threading

import numpy as np
import pytest
import tomli_w

from foreign_weights import timm_vit, written
from hilum.common.errors import ConfigError, DamagedError, RunError
from hilum.common.security.keys import read_study_key
from hilum.common.start import read_start
from hilum.server import app as server_app
from hilum.server.admin.authority import FederationFolder, make_trial
from hilum.server.admin.queue import RunQueue
from hilum.server.admin.submission import read_signed, sign_study_file, start_in_place
from hilum.server.admin.worker import RunWorker
from hilum.server.federation.start_file import start_file
from one_line import fails
from studies import study_table

SITES = ["site-0", "site-1"]


@pytest.fixture
def study(tmp_path):
    sha256 = written(timm_vit(grid=2, patch=8), tmp_path / "vit.safetensors")
    path = tmp_path / "study.toml"
    init = {"file": "vit.safetensors", "sha256": sha256}
    path.write_text(tomli_w.dumps(study_table(encoder={"init": init}, federation={"sites": 2})))
    return path


@pytest.fixture
def folder(tmp_path):
    make_trial(tmp_path / "trial", 2, ["127.0.0.1"], 9443)
    return FederationFolder(tmp_path / "trial" / "server")


@pytest.fixture
def signed(study, folder):
    return sign_study_file(study, None, SITES, 1.0, folder.file("study.key"))


@pytest.fixture
def worker(folder):
    queue = RunQueue(folder.file("runs.sqlite"))
    key = read_study_key(folder.file("study.key")).public_key()
    yield RunWorker(queue, folder.runs, key, lambda run, sites: None, lambda *work: None)
    queue.close()


def test_a_server_takes_a_study_once_its_start_is_there(folder, signed, worker):
    with pytest.raises(
        RunError, match="starts from are not here; submit it with `hilum admin submit` on this machine"
    ):
        worker.submit(signed.study, resume=False)
    with start_in_place(folder, signed):
        order = worker.submit(signed.study, resume=False)
    kept = start_file(folder.runs, order.run, order.start_sha256)
    assert np.array_equal(read_start(kept, order.start_sha256).weights, signed.start.weights)
    with pytest.raises(RunError, match="choose another name"), start_in_place(folder, signed):
        worker.submit(signed.study, resume=False)
    assert kept.exists(), "the run that is queued needs it"


def test_a_start_goes_again_if_the_server_refuses_the_study(folder, signed):
    with pytest.raises(RunError), start_in_place(folder, signed):
        raise RunError("no")
    assert not list((folder.runs / ".starts").iterdir())


def test_a_run_starts_from_it_and_drops_it_at_the_end(folder, signed, worker, monkeypatch):
    with start_in_place(folder, signed):
        order = worker.submit(signed.study, resume=False)
    seen = []
    monkeypatch.setattr(server_app, "run_study", lambda grid, work: seen.append(work.start))
    run = folder.runs / order.run
    server_app.conduct_order("grid", order, signed.study, run, threading.Event())
    assert np.array_equal(seen[0].weights, signed.start.weights)
    assert seen[0].report == signed.start.report
    assert not start_file(folder.runs, order.run, order.start_sha256).exists()


def test_a_study_signed_elsewhere_brings_its_start_beside_it(study, folder, run_hilum, tmp_path):
    words = ("admin", "sign", study, "--sites", "site-0,site-1", "--key", folder.file("study.key"))
    done = run_hilum(*words, "--out", "signed.json")
    assert done.returncode == 0, done.stderr
    assert "signed.start.safetensors goes with it" in done.stdout
    assert "147 matched" in done.stderr
    found = read_signed(tmp_path / "signed.json")
    assert found.start is not None
    assert found.run == "tiny"
    beside = tmp_path / "signed.start.safetensors"
    content = bytearray(beside.read_bytes())
    content[-5] ^= 1
    beside.write_bytes(content)
    with pytest.raises(DamagedError, match="not those that were signed"):
        read_signed(tmp_path / "signed.json")
    beside.unlink()
    with pytest.raises(ConfigError, match=r"signed\.json: needs signed\.start\.safetensors beside it"):
        read_signed(tmp_path / "signed.json")


def test_what_is_wrong_with_the_file_is_told_before_any_server_is_asked(study, folder, run_hilum, tmp_path):
    (tmp_path / "vit.safetensors").unlink()
    at = ("--home", folder.home)
    fails(run_hilum("admin", "submit", study, *at), "encoder.init: there is no file")
    written(timm_vit(grid=2, patch=8, seed=5), tmp_path / "vit.safetensors")
    fails(run_hilum("admin", "submit", study, *at), "encoder.init.sha256 is")
