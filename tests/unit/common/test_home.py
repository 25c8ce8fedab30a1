"""Without a home and without a user, each command says how to name the state folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hilum.common import home
from hilum.common.errors import ConfigError

_NOBODY = """
import pwd
def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = getpwuid
from hilum.common.cli import main
main()
"""


@pytest.fixture
def nobody(tmp_path):
    """Run the command line as a user that is in no list, without HOME: what a container's `--user 12345` is."""

    def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if k not in {"HOME", "HILUM_HOME", "USER", "LOGNAME"}}
        return subprocess.run(
            [sys.executable, "-c", _NOBODY, *map(str, words)],
            capture_output=True,
            text=True,
            env={**kept, **more},
            cwd=tmp_path,
            check=False,
        )

    return run


def test_a_command_without_a_home_asks_for_one(nobody, tmp_path):
    for words in (("site", "status"), ("admin", "runs"), ("site", "index", tmp_path)):
        done = nobody(*words)
        assert done.returncode == 2, done.stderr
        assert "give the state folder with --home, or set HILUM_HOME" in done.stderr
        assert done.stderr.count("\n") == 1
    assert "nothing is indexed yet in" in nobody("site", "status", "--home", tmp_path / "h").stderr
    assert "nothing is indexed yet in" in nobody("site", "status", HILUM_HOME=str(tmp_path / "h")).stderr


def test_a_whole_simulation_needs_no_home_where_one_is_named(nobody, archives, study_file, tmp_path):
    study = study_file(federation={"rounds": 1})
    done = nobody(
        "simulate", study, "--archives", archives, "--out", tmp_path / "run", "--home", tmp_path / "h"
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "atplotlib" not in done.stderr
    assert (tmp_path / "run" / "report.html").exists()


def test_a_home_that_is_no_user_is_named():
    with pytest.raises(ConfigError, match="~nobody-of-this-name is not a user"):
        home.hilum_home(Path("~nobody-of-this-name/x"))
    assert home.hilum_home(Path("rel")) == Path("rel").absolute()
