"""A run that its surroundings end says so in one line, and goes on as if nothing had been."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-c", "from hilum.common.cli import main; main()"]


def encoder_sha256(run):
    return json.loads((run / "encoder" / "manifest.json").read_text())["encoder_sha256"]


@pytest.fixture
def words(archives, study_file, tmp_path):
    study = study_file(federation={"rounds": 3})

    def make(out: str, *more: str) -> list[str]:
        where = ["--archives", archives, "--out", tmp_path / out, "--home", tmp_path / "home"]
        return [str(word) for word in ("simulate", study, *where, *more)]

    return make


def run(words, *, before=()):
    return subprocess.run([*before, *COMMAND, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", ["process", pytest.param("ray", marks=pytest.mark.slow)])
def test_ctrl_c_in_a_round_says_how_to_go_on_and_the_encoder_is_the_same(words, tmp_path, backend):
    if backend == "ray":
        pytest.importorskip("ray", reason="needs the simulation extra")
    stopped = words("stopped", "--backend", backend)
    child = subprocess.Popen([*COMMAND, *stopped], stderr=subprocess.PIPE, text=True, start_new_session=True)
    first = tmp_path / "stopped" / "checkpoints" / "round-000001.safetensors"
    while child.poll() is None and not first.exists():
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 130
    assert (
        said.splitlines()[-1]
        == "stopped by Ctrl-C; what is done is kept: the same command with --resume goes on"
    )
    assert "Traceback" not in said
    if (
        backend == "process"
    ):  # where nothing reaps orphans, what Ray started stays in the list when it has ended
        with pytest.raises(ProcessLookupError):
            os.killpg(child.pid, 0)  # nobody is left
    again = run([*stopped, "--resume"])
    assert again.returncode == 0, again.stderr
    assert run(words("whole")).returncode == 0
    assert encoder_sha256(tmp_path / "stopped") == encoder_sha256(tmp_path / "whole")


def test_no_room_for_a_file_is_one_line_and_goes_on_when_there_is(words, tmp_path):
    assert run(words("whole")).returncode == 0  # the archives are indexed with it
    small = ("bash", "-c", 'ulimit -f 2000; exec "$@"', "bash")  # in KiB: less than one checkpoint
    refused = run(words("small"), before=small)
    assert refused.returncode == 4, refused.stderr
    assert "internal error" not in refused.stderr
    assert "--resume" in refused.stderr.splitlines()[-1]
    again = run(words("small", "--resume"))
    assert again.returncode == 0, again.stderr
    assert encoder_sha256(tmp_path / "small") == encoder_sha256(tmp_path / "whole")


def test_too_little_memory_is_one_line(words):
    assert run(words("whole")).returncode == 0
    small = ("bash", "-c", 'ulimit -v 900000; exec "$@"', "bash")  # in KiB: torch and a model do not fit
    refused = run(words("small"), before=small)
    assert refused.returncode == 4, refused.stderr
    assert "no memory left" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


def test_a_file_where_a_folder_is_needed_is_one_line(words, tmp_path):
    (tmp_path / "file").write_text("")
    for call in (words("file/run"), ["site", "index", str(tmp_path), "--home", str(tmp_path / "file")]):
        refused = run(call)
        assert refused.returncode == 4, refused.stderr
        assert "internal error" not in refused.stderr
    assert (tmp_path / "file").read_text() == ""


def test_a_missed_deadline_says_that_it_may_be_longer_and_it_may(archives, study_file, tmp_path):
    short = study_file("short.toml", federation={"deadline_s": 0.01})
    where = ["--archives", str(archives), "--out", str(tmp_path / "run"), "--home", str(tmp_path / "home")]
    refused = run(["simulate", str(short), *where])
    assert refused.returncode == 5, refused.stderr
    assert "give a longer federation.deadline_s, which --resume takes" in refused.stderr
    again = run(["simulate", str(study_file()), *where, "--resume"])
    assert again.returncode == 0, again.stderr
