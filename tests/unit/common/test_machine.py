"""What the machine refuses is told as that, whichever library says it, and nothing of its text is repeated."""

import errno
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from hilum.common.machine import machine_problem, name_place


@pytest.fixture
def full_device():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    return Path("/dev/full")


def said(error: BaseException) -> str:
    problem = machine_problem(error)
    assert problem is not None, repr(error)
    return str(problem)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "a disk is full: make room"),
        (errno.EDQUOT, "is full for this user: make room"),
        (errno.EFBIG, "takes no file of this size"),
        (errno.EROFS, "can only be read: choose another folder"),
        (errno.EACCES, "may not be written or read by this user: choose another folder"),
        (errno.ENOTDIR, "is a file, or lies below one: choose another folder"),
        (errno.EEXIST, "is a file, or lies below one: choose another folder"),
        (errno.EMFILE, "may not open so many files: raise the limit"),
        (errno.ENFILE, "may not open so many files: raise the limit"),
        (errno.ENOMEM, "the machine has no memory left: end other programs"),
    ],
)
def test_each_number_of_the_system_has_words_and_a_remedy(number, words):
    error = OSError(number, os.strerror(number), "/archive/MARKER-00000.dcm")
    assert words in said(error)
    assert "MARKER" not in said(error)


def test_what_libraries_raise_without_a_number_is_known(full_device, tmp_path):
    with pytest.raises(OSError, match=r"free space|requested and") as array, full_device.open("wb") as file:
        np.ones(1 << 20).tofile(file)
    assert "is full" in said(array.value)
    with pytest.raises(RuntimeError) as checkpoint:
        torch.save({"x": torch.zeros(1 << 18)}, full_device)
    assert "is full" in said(checkpoint.value)


def test_tensors_that_find_no_room(monkeypatch, tmp_path):
    class SafetensorError(Exception):
        """Named as the library's own."""

    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert "is full" in said(error)
    save_file(
        {"x": np.zeros(1, np.float32)}, tmp_path / "x"
    )  # the library is there, and raises what is told above


def test_a_database_that_is_full_locked_or_read_only(tmp_path):
    connection = sqlite3.connect(tmp_path / "x.sqlite")
    connection.execute("PRAGMA max_page_count = 2")
    connection.execute("CREATE TABLE t (x)")
    with pytest.raises(sqlite3.OperationalError) as full:
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)
    assert "is full" in said(full.value)
    connection.rollback()
    connection.execute("BEGIN IMMEDIATE")
    engine = create_engine(f"sqlite:///{tmp_path / 'x.sqlite'}", connect_args={"timeout": 0.01})
    with pytest.raises(OperationalError) as busy, engine.begin() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
    assert "in use by another process" in said(busy.value)
    connection.rollback()
    reader = sqlite3.connect(f"file:{tmp_path / 'x.sqlite'}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError) as only_read:
        reader.execute("INSERT INTO t VALUES (1)")
    assert "can only be read" in said(only_read.value)
    for one in (connection, reader):
        one.close()
    engine.dispose()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("can't start new thread"),
        ImportError("/opt/chip/_stats.so: failed to map segment from shared object"),
    ],
)
def test_too_little_memory_is_told(error):
    assert "no memory left: end other programs, choose a smaller batch_size" in said(error)
    assert ("GPU" in said(error)) == isinstance(error, torch.OutOfMemoryError)


def test_an_error_behind_another_is_found_and_a_defect_is_none():
    wrapped = ValueError("element (7FE0,0010)")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert "is full" in said(wrapped)
    for defect in (
        ValueError("x"),
        KeyError("disk"),
        RuntimeError("mat1 and mat2 differ"),
        OSError("x"),
        ImportError("cannot import name 'x'"),
    ):
        assert machine_problem(defect) is None


def test_a_folder_that_takes_nothing_is_told_and_a_file_that_is_missing_is_a_defect(tmp_path):
    made = Path("/proc/hilum")
    with pytest.raises(OSError, match="hilum") as refused:
        made.mkdir()
    assert "choose another folder" in said(refused.value)  # `root` is told that /proc/hilum does not exist
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "x").read_bytes()
    assert machine_problem(missing.value) is None


def test_a_folder_is_called_as_the_person_called_it(tmp_path):
    name_place("the run folder (--out)", tmp_path / "run")
    error = PermissionError(errno.EACCES, "no", str(tmp_path / "run" / "deep" / "file"))
    assert said(error).startswith("the run folder (--out) may not be written")


def test_an_error_of_python_itself_is_one_of_memory_only_where_there_is_none(monkeypatch):
    error = SystemError("error return without exception set")
    assert machine_problem(error) is None
    monkeypatch.setattr("hilum.common.machine._PROBE_BYTES", 1 << 62)
    assert "no memory left" in str(machine_problem(error))
