"""`hilum site index FOLDER --watch` follows a folder, and takes no file that is still being written."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hilum.client.intake.indexing import watch as watch_module
from hilum.client.intake.indexing.watch import watch
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError
from hilum.common.progress import progress_bar

EVERY_S = 0.2


@pytest.fixture
def radiograph(dicom, tmp_path):
    rng = np.random.default_rng(0)

    def make(name):
        path = tmp_path / "made" / name
        dicom(path, rng.integers(0, 999, (16, 16)).astype(np.uint16))
        return path.read_bytes()

    return make


@pytest.fixture
def watching(tmp_path):
    """Watch `archive` in a thread; the reports and warnings gather in lists."""
    (tmp_path / "archive").mkdir()
    stop, reports, warnings, thread = threading.Event(), [], [], []

    def start():
        arguments = (tmp_path / "archive", Workspace(tmp_path / "state"), EVERY_S, stop)
        thread.append(
            threading.Thread(
                target=watch, args=(*arguments, progress_bar, reports.append, warnings.append), daemon=True
            )
        )
        thread[0].start()
        return reports, warnings

    yield start
    stop.set()
    for one in thread:
        one.join(timeout=60)
        assert not one.is_alive()


def until(condition):
    while not condition():
        time.sleep(0.02)


def test_a_pass_follows_each_change_and_no_pass_follows_none(watching, radiograph, tmp_path):
    folder = tmp_path / "archive"
    (folder / "0.dcm").write_bytes(radiograph("0.dcm"))
    reports, _ = watching()
    until(lambda: len(reports) == 1)
    time.sleep(5 * EVERY_S)
    assert len(reports) == 1
    (folder / "1.dcm").write_bytes(radiograph("1.dcm"))
    until(lambda: len(reports) == 2)
    (folder / "0.dcm").unlink()
    until(lambda: len(reports) == 3)
    assert [report.counts.instances for report in reports] == [1, 2, 1]
    assert [report.decoded for report in reports] == [1, 1, 0]
    assert [report.removed for report in reports] == [0, 0, 1]


def test_a_file_that_is_still_being_written_is_not_read(watching, radiograph, tmp_path, monkeypatch):
    folder = tmp_path / "archive"
    (folder / "0.dcm").write_bytes(radiograph("0.dcm"))
    content = radiograph("1.dcm")
    growing = folder / "1.dcm"
    written, look, writing = [200], watch_module._look, threading.Lock()

    def grow_and_look(where):
        with writing:
            if written:
                written.append(written[-1] + 1)
                growing.write_bytes(content[: written[-1]])
        return look(where)

    monkeypatch.setattr(watch_module, "_look", grow_and_look)
    reports, _ = watching()
    until(lambda: reports and len(written) > 10)
    with writing:
        written.clear()
        growing.write_bytes(content)
    assert {report.counts.files for report in reports} == {1}
    assert all(report.counts.skipped == {} for report in reports)
    until(lambda: reports[-1].counts.instances == 2)
    assert all(report.counts.skipped == {} for report in reports)


def test_a_share_that_is_away_for_a_while_loses_nothing(watching, radiograph, tmp_path):
    folder = tmp_path / "archive"
    (folder / "0.dcm").write_bytes(radiograph("0.dcm"))
    reports, warnings = watching()
    until(lambda: len(reports) == 1)
    folder.rename(tmp_path / "away")
    until(lambda: warnings)
    assert "mounted" in warnings[0]
    (tmp_path / "away" / "1.dcm").write_bytes(radiograph("1.dcm"))
    (tmp_path / "away").rename(folder)
    until(lambda: len(reports) == 2)
    assert (reports[1].counts.instances, reports[1].decoded, reports[1].removed) == (2, 1, 0)


def test_a_folder_that_was_never_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        watch(
            tmp_path / "none", Workspace(tmp_path / "state"), 1, threading.Event(), progress_bar, print, print
        )


def test_the_command_ends_cleanly_when_asked(radiograph, tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "0.dcm").write_bytes(radiograph("0.dcm"))
    command = [
        str(Path(sys.executable).parent / "hilum"),
        "site",
        "index",
        "archive",
        "--watch",
        "--every",
        "1",
    ]
    with subprocess.Popen(
        [*command, "--json", "--home", "home"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        first = ""
        while not first.endswith("\n}\n"):
            first += process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert json.loads(first)["instances"] == 1
    assert "error" not in said
    shutil.rmtree(tmp_path / "home")
