"""A server and three sites on loopback, behind mutual TLS: the simulation's encoder, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from conftest import study_table

SCRIPT = Path(__file__).parents[1] / "deployment.py"
HILUM = str(Path(sys.executable).parent / "hilum")


def run(*words, home):
    environment = {**os.environ, "HILUM_HOME": str(home)}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Three of them, large enough for a site's threshold of patients."""
    from hilum.simulations.phantoms import write_phantoms

    folder = tmp_path_factory.mktemp("hospitals") / "archives"
    write_phantoms(folder, sites=3, patients=60, size=64, seed=5)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    table = study_table(
        federation={"rounds": 3},
        privacy={"min_patients": 11},
        evaluation={"arms": ["federated", "raw"]},
    )
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text(tomli_w.dumps(table))
    return path


@pytest.fixture(scope="module")
def expected(hospitals, study, tmp_path_factory):
    """The encoder of the same study, simulated."""
    folder = tmp_path_factory.mktemp("simulated")
    words = ("simulate", study, "--archives", hospitals, "--out", folder / "run")
    run(HILUM, *words, home=folder / "home")
    return json.loads((folder / "run" / "encoder" / "manifest.json").read_text())["encoder_sha256"]


@pytest.mark.timeout(900)
def test_a_deployment_whose_client_is_killed_gives_the_simulations_encoder(
    hospitals, study, expected, tmp_path
):
    out = tmp_path / "deployed"
    printed = run(sys.executable, SCRIPT, study, hospitals, out, "--kill-site", 1, home=tmp_path / "h")
    assert f"encoder_sha256 {expected}" in printed
    assert "outbound connections are off in" in printed
    results = json.loads((out / "run" / "results.json").read_text())
    assert {row["site"] for row in results["evaluation"]} == {"site-0", "site-1", "site-2"}
    assert all(not record["failures"] for record in results["rounds"])
    log = (out / "server.log").read_text()
    for line in ("run study is queued", "site site-2 connected", "round 3 of 3: 3 of 3 sites", "is finished"):
        assert line in log


@pytest.mark.timeout(900)
def test_under_attack_everything_is_refused_and_the_honest_study_gives_the_undisturbed_encoder(
    hospitals, study, expected, tmp_path
):
    script = SCRIPT.with_name("attacks.py")
    printed = run(
        *(sys.executable, script, study, hospitals, tmp_path / "attacked", "--expect", expected, "--quick"),
        home=tmp_path / "h",
    )
    assert "BROKEN" not in printed
    assert printed.count("held   | ") > 80


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployment_whose_server_is_killed_goes_on_by_itself_to_the_same_encoder(
    hospitals, study, expected, tmp_path
):
    words = (study, hospitals, tmp_path / "deployed", "--kill-server", "--proxied")
    printed = run(sys.executable, SCRIPT, *words, home=tmp_path / "h")
    assert f"encoder_sha256 {expected}" in printed
