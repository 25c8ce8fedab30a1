"""Objects from the network come in whole, under hashed names, or not at all."""

import io
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from hilum.client.intake.sources.inbox import (
    Inbox,
    MismatchError,
    NoRoomError,
    OversizedError,
    is_uid,
    stated_uid,
)
from hilum.client.state.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "state")


@pytest.fixture
def one(dicom, tmp_path):
    """A file's bytes and its UID."""
    dataset = dicom(tmp_path / "one.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8))
    return dataset.SOPInstanceUID, (tmp_path / "one.dcm").read_bytes()


def files(workspace):
    return [path for path in workspace.inbox.rglob("*") if path.is_file()]


@pytest.mark.parametrize("text", ["1.2.840.10008.1.1", "0", "1.02.3", "1" * 64])
def test_what_a_uid_is(text):
    assert is_uid(text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "1.", "1..2", "../../etc/passwd", "1.2/3", "1.2\n", "1.2\0", "1" * 65, "\u0661.2", "1.2 "],
)
def test_what_no_uid_is(text):
    assert not is_uid(text)


def test_an_object_is_stored_whole_under_a_hashed_name(workspace, one):
    uid, content = one
    with Inbox(workspace) as inbox:
        assert not inbox.has(uid)
        assert inbox.store(uid, content)
        assert inbox.has(uid)
        assert not inbox.store(uid, iter([content[:100], content[100:]]))
    (path,) = files(workspace)
    assert path.read_bytes() == content
    assert uid not in str(path)
    assert path.stat().st_mode & 0o077 == 0
    assert workspace.inbox.stat().st_mode & 0o077 == 0
    assert list((workspace.folder / "incoming").iterdir()) == []


def test_bytes_of_another_instance_are_refused(workspace, one):
    _, content = one
    with Inbox(workspace) as inbox:
        for uid, what in ((generate_uid(), content), ("1.2.3", b"<html>"), ("1.2.3", b""), ("../1", content)):
            with pytest.raises(MismatchError):
                inbox.store(uid, what)
        assert list(inbox.incoming.iterdir()) == []
    assert files(workspace) == []


def test_a_changed_object_replaces_the_old_one(workspace, one, tmp_path):
    uid, content = one
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.Rows, dataset.Columns = 4, 16
    dataset.save_as(tmp_path / "changed.dcm", enforce_file_format=True)
    changed = (tmp_path / "changed.dcm").read_bytes()
    with Inbox(workspace) as inbox:
        assert inbox.store(uid, content)
        assert inbox.store(uid, changed)
    assert [path.read_bytes() for path in files(workspace)] == [changed]


def test_an_object_over_the_limit_is_refused_while_it_comes(workspace, one):
    uid, content = one
    given = 0

    def endless():
        nonlocal given
        while True:
            given += 1
            yield content

    with Inbox(workspace, max_bytes=10_000) as inbox, pytest.raises(OversizedError, match="larger than"):
        inbox.store(uid, endless())
    assert given < 100
    assert files(workspace) == []


def test_a_full_disk_is_one_clear_error(workspace, one):
    uid, content = one
    with Inbox(workspace, reserve_bytes=1 << 60) as inbox, pytest.raises(NoRoomError, match="nearly full"):
        inbox.store(uid, content)
    assert files(workspace) == []


def test_a_disk_that_fills_up_while_writing_is_the_same_error(workspace, one, tmp_path):
    uid, _ = one
    code = (
        "import resource, signal, sys, pathlib\n"
        "from hilum.client.intake.sources.inbox import Inbox\n"
        "from hilum.client.state.workspace import Workspace\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "with Inbox(Workspace(pathlib.Path(sys.argv[1]))) as inbox:\n"
        "    inbox.store(sys.argv[2], bytes(100_000))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace.folder), uid], capture_output=True, text=True, check=False
    )
    assert "NoRoomError: the disk of the state folder is full" in done.stderr
    assert files(workspace) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(workspace, one):
    uid, content = one
    code = (
        "import os, sys, pathlib\n"
        "from hilum.client.intake.sources.inbox import Inbox\n"
        "from hilum.client.state.workspace import Workspace\n"
        "inbox = Inbox(Workspace(pathlib.Path(sys.argv[1])))\n"
        "inbox.__enter__()\n"
        "(inbox.incoming / 'half').write_bytes(b'x')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(workspace.folder)], check=False)
    assert len(list((workspace.folder / "incoming").iterdir())) == 1
    with Inbox(workspace) as first:
        assert [path.name for path in (workspace.folder / "incoming").iterdir()] == [first.incoming.name]
        with Inbox(workspace) as second:
            assert first.incoming.exists()
            second.store(uid, content)
        assert first.incoming.exists()
    assert len(files(workspace)) == 1


def test_the_uid_of_a_deflated_bomb_is_read_without_inflating_it(tmp_path, dicom):
    dataset = dicom(tmp_path / "bomb.dcm", np.zeros((8, 8), np.uint16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.PixelData = bytes(200 << 20)
    dataset.save_as(tmp_path / "bomb.dcm", enforce_file_format=True)
    tracemalloc.start()
    try:
        assert stated_uid(tmp_path / "bomb.dcm") == dataset.SOPInstanceUID
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_broken_files_state_no_uid(tmp_path):
    rng = np.random.default_rng(0)
    nested = b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    for tail in (b"", rng.bytes(5000), nested, b"\x02\x00\x02\x01OB\0\0\xff\xff\xff\x7f"):
        (tmp_path / "broken").write_bytes(bytes(128) + b"DICM" + tail)
        assert stated_uid(tmp_path / "broken") == ""


def test_a_folder_that_its_process_removes_meanwhile_disturbs_nobody(workspace, one, monkeypatch):
    uid, content = one
    with Inbox(workspace):
        pass
    incoming, iterdir = workspace.folder / "incoming", Path.iterdir
    monkeypatch.setattr(
        Path, "iterdir", lambda path: iter([path / "gone"]) if path == incoming else iterdir(path)
    )
    with Inbox(workspace) as inbox:
        assert inbox.store(uid, content)


def test_a_folder_is_locked_before_another_process_can_take_it_for_abandoned(workspace, monkeypatch):
    """Two processes that start at once: the second waits until the first has made and locked its folder."""
    entered, mkdir = threading.Event(), Path.mkdir
    second = Inbox(workspace)
    thread = threading.Thread(target=lambda: (entered.set(), second.__enter__()), daemon=True)

    def made(path, *arguments, **options):
        mkdir(path, *arguments, **options)
        if path == first.incoming:
            thread.start()
            entered.wait()
            thread.join(0.3)  # the second would remove the folder now

    first = Inbox(workspace)
    monkeypatch.setattr(Path, "mkdir", made)
    with first:
        thread.join(30)
        assert not thread.is_alive()
        assert first.incoming.exists()
        assert second.incoming.exists()
    second.__exit__(None, None, None)
