"""Whole studies that start from a file of weights: simulated, at a site alone, deployed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tomli_w

from foreign_weights import timm_vit, written
from hilum.client.evaluation import site as evaluation
from hilum.common.config import load_study
from hilum.common.start import start_from_file
from hilum.simulations import run as simulations
from hilum.simulations.run import simulate
from one_line import fails
from places import SUPPORT
from studies import study_table


@pytest.fixture
def warm(tmp_path):
    """Write a study beside the weights that it starts from."""

    def write(**changes):
        sha256 = written(timm_vit(grid=4, patch=8), tmp_path / "vit.safetensors")
        init = {"file": "vit.safetensors", "sha256": sha256}
        table = study_table(encoder={"positions": "learned", "init": init}, **changes)
        path = tmp_path / "study.toml"
        path.write_text(tomli_w.dumps(table))
        return path

    return write


def test_every_arm_that_is_pre_trained_starts_from_the_file_and_the_run_says_so(
    warm, archives, tmp_path, monkeypatch
):
    study = load_study(warm(evaluation={"arms": ["federated", "local", "centralised", "random"]}))
    begun, told = [], []
    for module in (evaluation, simulations):

        def watched(*words, start=None, inner=module.pretrain_alone, **more):
            begun.append(start)
            return inner(*words, start=start, **more)

        monkeypatch.setattr(module, "pretrain_alone", watched)
    results = simulate(study, archives, tmp_path / "run", tmp_path / "home", tell=told.append)
    expected = start_from_file(study)
    assert len(begun) == 4, "three sites, and all of their images in one place"
    assert all(np.array_equal(start, expected.weights) for start in begun)
    assert any("147 matched, 2 adapted, 3 left" in line for line in told)
    run = tmp_path / "run"
    report = json.loads((run / "warm_start.json").read_text())
    assert len(report["keys"]) == 152
    summary = {"file": "vit.safetensors", "sha256": study.encoder.init.sha256, "kind": "timm"}
    summary |= {"matched": 147, "adapted": 2, "left": 3, "first_values": 0}
    assert results["start"] == summary
    assert json.loads((run / "encoder" / "manifest.json").read_text())["start"] == summary
    assert "vit.safetensors" in (run / "encoder" / "MODEL_CARD.md").read_text()
    assert "start weights: vit.safetensors" in (run / "report.html").read_text()
    for path in run.rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), f"{path} tells a folder"


def test_a_wrong_file_ends_a_simulation_before_anything_is_indexed(warm, archives, run_hilum, tmp_path):
    path = warm()
    text = path.read_text()
    path.write_text(text.replace(load_study(path).encoder.init.sha256, "0" * 64))
    fails(run_hilum("simulate", path, "--archives", archives, "--out", "run"), "encoder.init.sha256 is 000")
    path.write_text(text.replace('size = "tiny"', 'size = "small"'))
    fails(
        run_hilum("simulate", path, "--archives", archives, "--out", "run"),
        "width 192 in the file, 384 in the study",
        'encoder.size = "tiny"',
    )
    (tmp_path / "vit.safetensors").write_bytes(b"\x10\x00")
    fails(run_hilum("simulate", path, "--archives", archives, "--out", "run"), "encoder.init.sha256 is")
    assert not (tmp_path / "run").exists()


def test_a_site_alone_starts_from_the_file(warm, hospitals, run_hilum, tmp_path):
    path = warm(privacy={"min_patients": 11})
    site = hospitals / "site-0"
    (tmp_path / "site.toml").write_text(
        f'[site]\nname = "site-0"\n[data]\ndicom = "{site / "dicom"}"\nlabels = "{site / "labels.csv"}"\n'
        f'[state]\nfolder = "{tmp_path / "hilum-home" / "site"}"\n[compute]\ndevice = "cpu"\n'
    )
    assert run_hilum("site", "index", site / "dicom").returncode == 0
    done = run_hilum("site", "pretrain", path, "site.toml", "--out", "mine")
    assert done.returncode == 0, done.stderr
    assert "147 matched, 2 adapted, 3 left" in done.stderr
    assert json.loads((tmp_path / "mine" / "manifest.json").read_text())["start"]["kind"] == "timm"
    assert json.loads((tmp_path / "mine" / "warm_start.json").read_text())["counts"]["left"] == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployment_whose_sites_have_no_file_gives_the_simulations_encoder(warm, hospitals, tmp_path):
    study = warm(privacy={"min_patients": 11}, evaluation={"arms": ["federated", "local", "raw"]})
    simulate(load_study(study), hospitals, tmp_path / "run", tmp_path / "home")
    expected = json.loads((tmp_path / "run" / "encoder" / "manifest.json").read_text())["encoder_sha256"]
    words = (SUPPORT / "deployment.py", study, hospitals, tmp_path / "deployed")
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, "HILUM_HOME": str(tmp_path / "h")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"encoder_sha256 {expected}" in done.stdout
    one, other = (
        {
            (row["site"], row["arm"]): round(row["value"], 3)
            for row in json.loads((folder / "results.json").read_text())["evaluation"]
            if row["metric"] == "auroc"
        }
        for folder in (tmp_path / "run", tmp_path / "deployed" / "run")
    )
    assert one == other, "the arm local too, which each site trains from what it was sent"
