"""A deployment under attack by strangers, a site, a server and a reader: all is refused, the honest study is as ever."""

import os
import subprocess
import sys

import pytest

from places import SUPPORT

SCRIPT = SUPPORT / "attacks.py"


@pytest.mark.timeout(900)
def test_everything_is_refused_and_the_honest_study_gives_the_undisturbed_encoder(
    hospitals, deployed_study, expected, tmp_path
):
    command = [sys.executable, SCRIPT, deployed_study, hospitals, tmp_path / "attacked", "--expect", expected]
    environment = {**os.environ, "HILUM_HOME": str(tmp_path / "h")}
    done = subprocess.run(
        [*map(str, command), "--quick"], capture_output=True, text=True, check=False, env=environment
    )
    assert "BROKEN" not in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held   | ") > 70
