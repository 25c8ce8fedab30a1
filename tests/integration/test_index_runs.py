"""The status says when the site was indexed, of which folder and with what outcome, and which index never ended."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.network.shutdown import StoppedError
from hilum.client.intake.sources.inbox import Inbox, stated_uid
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.index_runs import index_runs
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress

ENDLESS = """
import sys, time
from pathlib import Path
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.workspace import Workspace

class Wait:
    def advance(self, done, note=""):
        time.sleep(600)

index_archive(Path(sys.argv[1]), Workspace(Path(sys.argv[2])), Wait())
"""


class Stop:
    """A progress that is stopped at the first file."""

    def advance(self, done, note=""):
        raise StoppedError


@pytest.fixture
def archive(dicom, tmp_path):
    for n in range(3):
        dicom(
            tmp_path / "archive" / f"{n}.dcm", np.full((8, 8), n, np.uint16) + np.arange(8, dtype=np.uint16)
        )
    return tmp_path / "archive"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "hilum-home" / "site")


def remembered(workspace):
    catalogue = Catalogue(workspace.catalogue)
    try:
        return [
            (Path(run.folder).name, run.seconds is not None, run.decoded, run.removed)
            for run in index_runs(catalogue)
        ]
    finally:
        catalogue.close()


def put(workspace, path):
    with Inbox(workspace) as inbox:
        inbox.store(stated_uid(path), path.read_bytes())


def test_status_tells_the_last_index_in_words_and_json(archive, run_hilum):
    run_hilum("site", "index", archive)
    (archive / "0.dcm").unlink()
    before = datetime.now(UTC).replace(microsecond=0)
    run_hilum("site", "index", archive)
    (run,) = json.loads(run_hilum("site", "status", "--json").stdout)["index_runs"]
    assert before <= datetime.fromisoformat(run["began"]) <= datetime.now(UTC)
    assert run["seconds"] >= 0
    assert (run["folder"], run["state"], run["decoded"], run["removed"]) == (str(archive), "finished", 0, 1)
    said = run_hilum("site", "status").stdout
    assert f"indexed {archive}, {run['began']}, in {run['seconds']} s: 0 files had their pixels read" in said


def test_a_killed_index_is_told_until_another_has_ended(archive, run_hilum, workspace):
    with subprocess.Popen([sys.executable, "-c", ENDLESS, archive, workspace.folder]) as process:
        while not (workspace.catalogue.exists() and remembered(workspace)):
            time.sleep(0.02)
            assert process.poll() is None
        running = json.loads(run_hilum("site", "status", "--json").stdout)["index_runs"]
        process.kill()
    assert [run["state"] for run in running] == ["running"]
    (run,) = json.loads(run_hilum("site", "status", "--json").stdout)["index_runs"]
    assert (run["state"], run["seconds"], run["folder"]) == ("interrupted", None, str(archive))
    assert f"an index of {archive}, begun" in run_hilum("site", "status").stdout
    run_hilum("site", "index", archive)
    assert [done for _, done, _, _ in remembered(workspace)] == [True]


def test_an_interrupted_index_stands_beside_the_last_that_ended(archive, workspace):
    index_archive(archive, workspace, NullProgress())
    (archive / "0.dcm").touch()
    with pytest.raises(StoppedError):
        index_archive(archive, workspace, Stop())
    assert remembered(workspace) == [("archive", False, 0, 0), ("archive", True, 3, 0)]
    index_archive(archive, workspace, NullProgress())
    assert [run[1] for run in remembered(workspace)] == [True]


def test_an_index_of_the_inbox_leaves_what_is_known_of_the_folder(archive, dicom, workspace, tmp_path):
    put(workspace, archive / "1.dcm")
    with pytest.raises(StoppedError):
        index_archive(archive, workspace, Stop())
    index_archive(None, workspace, NullProgress())
    assert remembered(workspace)[1] == ("archive", False, 0, 0)
    assert remembered(workspace)[0][:2] == ("", True)
    index_archive(archive, workspace, NullProgress())
    assert [run[:2] for run in remembered(workspace)] == [("archive", True), ("", True)]
    dicom(tmp_path / "new.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8))
    put(workspace, tmp_path / "new.dcm")
    with pytest.raises(StoppedError):
        index_archive(None, workspace, Stop())
    index_archive(archive, workspace, NullProgress())  # which looks at the inbox too
    assert all(run[1] for run in remembered(workspace))


def test_a_folder_that_can_not_be_read_is_no_index(archive, run_hilum, workspace):
    index_archive(archive, workspace, NullProgress())
    run_hilum("site", "index", "nowhere")
    assert remembered(workspace) == [("archive", True, 3, 0)]
