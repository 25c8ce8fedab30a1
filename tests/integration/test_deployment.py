"""A SuperLink and three SuperNodes on loopback, over TLS with node keys: the simulation's encoder, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "deployment.py"
HILUM = str(Path(sys.executable).parent / "hilum")


def run(*words, home):
    environment = {**os.environ, "HILUM_HOME": str(home)}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def study(study_file):
    return study_file(federation={"rounds": 3}, evaluation={"arms": ["federated", "raw"]})


@pytest.fixture
def expected(archives, study, tmp_path):
    run(
        HILUM,
        "simulate",
        study,
        "--archives",
        archives,
        "--out",
        tmp_path / "simulated",
        home=tmp_path / "home",
    )
    return json.loads((tmp_path / "simulated" / "encoder" / "manifest.json").read_text())["encoder_sha256"]


@pytest.mark.timeout(900)
def test_a_deployment_whose_client_is_killed_gives_the_simulations_encoder(
    archives, study, expected, tmp_path
):
    printed = run(
        sys.executable, SCRIPT, study, archives, tmp_path / "deployed", "--kill-site", 1, home=tmp_path / "h"
    )
    assert f"encoder_sha256 {expected}" in printed
    assert "outbound connections are off in" in printed
    results = json.loads((tmp_path / "deployed" / "run" / "results.json").read_text())
    assert {row["site"] for row in results["evaluation"]} == {"site-0", "site-1", "site-2"}
    assert all(not record["failures"] for record in results["rounds"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployment_whose_server_is_killed_resumes_to_the_same_encoder(archives, study, expected, tmp_path):
    printed = run(
        sys.executable, SCRIPT, study, archives, tmp_path / "deployed", "--kill-server", home=tmp_path / "h"
    )
    assert f"encoder_sha256 {expected}" in printed
