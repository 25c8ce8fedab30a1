"""A server and three sites on loopback, behind mutual TLS: the simulation's encoder, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from places import SUPPORT

SCRIPT = SUPPORT / "deployment.py"
HILUM = str(Path(sys.executable).parent / "hilum")


def run(*words, home):
    environment = {**os.environ, "HILUM_HOME": str(home)}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(900)
def test_a_deployment_whose_client_is_killed_gives_the_simulations_encoder(
    hospitals, deployed_study, expected, tmp_path
):
    out = tmp_path / "deployed"
    printed = run(
        sys.executable, SCRIPT, deployed_study, hospitals, out, "--kill-site", 1, home=tmp_path / "h"
    )
    assert f"encoder_sha256 {expected}" in printed
    assert "outbound connections are off in" in printed
    results = json.loads((out / "run" / "results.json").read_text())
    assert {row["site"] for row in results["evaluation"]} == {"site-0", "site-1", "site-2"}
    assert all(not record["failures"] for record in results["rounds"])
    log = (out / "server.log").read_text()
    for line in ("run study is queued", "site site-2 connected", "round 3 of 3: 3 of 3 sites", "is finished"):
        assert line in log


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployment_whose_server_is_killed_goes_on_by_itself_to_the_same_encoder(
    hospitals, deployed_study, expected, tmp_path
):
    words = (deployed_study, hospitals, tmp_path / "deployed", "--kill-server", "--proxied")
    printed = run(sys.executable, SCRIPT, *words, home=tmp_path / "h")
    assert f"encoder_sha256 {expected}" in printed
