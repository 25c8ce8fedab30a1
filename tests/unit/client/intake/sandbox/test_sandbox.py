"""Workers that crash, hang, grow or lie cost one file each, and the parent goes on."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from hilum.client.intake.instance import Frame, Instance, PixelFormat, Window
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox import pool as sandbox_pool
from hilum.client.intake.sandbox.jobs import (
    DecodeImage,
    DecodePlanes,
    HeaderRead,
    ImageDecoded,
    PlanesDecoded,
    ReadHeader,
    Refused,
)
from hilum.client.intake.sandbox.messages import from_plain, to_plain
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.common.errors import RunError

# A worker whose decoder does to itself what the file's name says, as a hostile file would have it do.
MISBEHAVING = """
import ctypes, os, sys, time
import numpy as np
from hilum.client.intake.sandbox import handlers, worker

def behave(job, write):
    match job.path.stem.split("-")[0]:
        case "segv":
            ctypes.string_at(0)
        case "exit":
            os._exit(0)
        case "hang":
            while True:
                pass
        case "sleep":
            time.sleep(3600)
        case "grow":
            held = [np.ones(7 << 30, np.uint8)]
        case "panic":
            raise BaseException("ZZPHI quoted from the file")
        case "leave":
            raise SystemExit(0)
        case "talk":
            os.write(1, b"ZZPHI"); os.write(2, b"ZZPHI"); print("ZZPHI"); sys.stderr.write("ZZPHI")
        case "lie":
            write(np.zeros((4, 5, 6), np.float64))
            return
        case "garble":
            os.write(int(sys.argv[2]), b"\\xff" * 1000)
            time.sleep(3600)
    write(np.full((2, 3), int(job.path.stem.split("-")[1]), np.uint16))

old = handlers.KINDS["image"]
handlers.KINDS["image"] = handlers.Kind(old.job, behave, old.result, old.failed)
worker.main()
"""


def instance(shape=(2, 3), **changes) -> Instance:
    values = {
        "syntax": ExplicitVRLittleEndian,
        "rows": shape[0],
        "columns": shape[1],
        "frames": 1,
        "samples": 1,
        "photometric": "MONOCHROME2",
        "planar": False,
        "bits_allocated": 16,
        "bits_stored": 16,
        "high_bit": 15,
        "signed": False,
        **changes,
    }
    return Instance(
        "1.2",
        "1.2.3",
        "1.2.3.4",
        "ZZPHI",
        "",
        "1",
        "ct",
        ("ORIGINAL",),
        PixelFormat(**values),
        (Frame(0, slope=2.0, intercept=-1000.0, window=Window(40.0, 400.0, "SIGMOID")),),
        padding=(3, 4),
    )


def named(*names) -> list[DecodeImage]:
    return [DecodeImage(Path(f"{name}-{number}"), instance()) for number, name in enumerate(names)]


def outcome(result):
    return result.reason if isinstance(result, Refused) else int(result.image[0, 0])


@pytest.fixture
def misbehaving(monkeypatch):
    monkeypatch.setattr(sandbox_pool, "_WORKER", ("-c", MISBEHAVING))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("segv", Reason.DECODER_DIED),
        ("exit", Reason.DECODER_DIED),
        ("lie", Reason.DECODER_DIED),
        ("garble", Reason.DECODER_DIED),
        ("hang", Reason.DECODER_TIMEOUT),
        ("sleep", Reason.DECODER_TIMEOUT),
        ("grow", Reason.TOO_LARGE),
        ("panic", Reason.UNDECODABLE_PIXELS),
        ("leave", Reason.UNDECODABLE_PIXELS),
    ],
)
def test_a_fault_costs_the_one_file_that_caused_it(misbehaving, fault, reason):
    with DecodePool(2, timeout_s=1.0) as pool:
        results = list(pool.map(named("fine", fault, "fine", "fine", fault, "fine")))
    assert [outcome(one) for one in results] == [0, reason, 2, 3, reason, 5]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_jobs_whatever_the_number_of_workers(misbehaving, workers):
    names = ["fine", "segv", "fine", "hang", "grow", "fine", "panic", "exit", "fine", "fine", "fine", "fine"]
    with DecodePool(workers, timeout_s=1.0) as pool:
        results = [outcome(one) for one in pool.map(named(*names))]
    died, late = Reason.DECODER_DIED, Reason.DECODER_TIMEOUT
    broken = Reason.UNDECODABLE_PIXELS
    assert results == [0, died, 2, late, Reason.TOO_LARGE, 5, broken, died, 8, 9, 10, 11]


def test_jobs_are_taken_as_workers_get_free_and_not_all_at_once(misbehaving):
    taken = []

    def jobs():
        for job in named(*["fine"] * 200):
            taken.append(job)
            yield job

    with DecodePool(2) as pool:
        results = pool.map(jobs())
        next(results)
        assert len(taken) <= 12
        assert len(list(results)) == 199


def test_a_map_that_is_left_early_leaves_a_pool_that_works(misbehaving):
    with DecodePool(2, timeout_s=5.0) as pool:
        results = pool.map(named("fine", "sleep", "fine"))
        assert outcome(next(results)) == 0
        results.close()
        assert [outcome(one) for one in pool.map(named("fine", "fine"))] == [0, 1]


def test_an_idle_worker_that_was_killed_costs_no_file(misbehaving):
    with DecodePool(1) as pool:
        assert [outcome(one) for one in pool.map(named("fine"))] == [0]
        pool._workers[0].process.kill()
        pool._workers[0].process.wait()
        assert [outcome(one) for one in pool.map(named("fine", "fine"))] == [0, 1]


def test_nothing_that_a_library_says_reaches_the_streams_or_the_log(misbehaving, capfd, caplog):
    with caplog.at_level(logging.DEBUG), DecodePool(1) as pool:
        assert [outcome(one) for one in pool.map(named("talk", "panic"))] == [0, Reason.UNDECODABLE_PIXELS]
    said = capfd.readouterr()
    assert "ZZPHI" not in said.out + said.err + caplog.text


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from hilum.client.intake.sandbox import pool as sandbox\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_sandbox import MISBEHAVING, named\n"
        "sandbox._WORKER = ('-c', MISBEHAVING)\n"
        "pool = sandbox.DecodePool(2)\n"
        "results = pool.map(named('fine', 'sleep', 'sleep'))\n"
        "next(results)\n"
        "print(*[one.process.pid for one in pool._workers], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(word) for word in done.stdout.split()]
    assert pids
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_an_installation_whose_workers_cannot_start_is_an_error_and_no_endless_loop(monkeypatch):
    monkeypatch.setattr(sandbox_pool, "_WORKER", ("-c", "raise SystemExit(3)"))
    with DecodePool(2) as pool, pytest.raises(RunError, match="end as soon as they start"):
        list(pool.map(named("fine")))


def test_an_unwritable_answer_is_the_machines_fault_and_not_the_files(monkeypatch):
    full = MISBEHAVING.replace("import ctypes", "import errno, ctypes").replace(
        "worker.main()",
        "def full(*_): raise OSError(errno.ENOSPC, 'full')\n"
        "write = os.write\n"
        "os.write = lambda fd, data: write(fd, data) if fd == int(sys.argv[2]) else full()\n"
        "worker.main()",
    )
    monkeypatch.setattr(sandbox_pool, "_WORKER", ("-c", full))
    with DecodePool(1) as pool, pytest.raises(RunError, match="scratch folder is full"):
        list(pool.map(named("fine")))


def test_images_and_planes_come_back_as_they_were_decoded(tmp_path, dicom):
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    dicom(tmp_path / "a", pixels)
    facts = instance((3, 4))
    with DecodePool(2, scratch=tmp_path) as pool:
        planes, image, missing = pool.map(
            [
                DecodePlanes(tmp_path / "a", facts, (0, 0)),
                DecodeImage(tmp_path / "a", facts),
                DecodeImage(tmp_path / "absent", facts),
            ]
        )
    assert isinstance(planes, PlanesDecoded)
    np.testing.assert_array_equal(planes.values, [pixels * np.float32(2) - 1000] * 2)
    np.testing.assert_array_equal(planes.empty, [(pixels == 3) | (pixels == 4)] * 2)
    assert isinstance(image, ImageDecoded)
    assert (image.image.shape, image.image.dtype) == ((3, 4), np.uint16)
    assert missing == Refused(Reason.UNREADABLE)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_job_crosses_without_what_tells_the_patient():
    job = DecodePlanes(Path(os.fsdecode(b"/a/\xff.dcm")), instance(), (0,))
    plain = to_plain(job)
    assert "ZZPHI" not in str(plain)
    assert "1.2.3" not in str(plain["job"]["instance"]["series_uid"])
    _kind, back = from_plain(plain)
    assert back.path == job.path
    assert back.instance.pixels == job.instance.pixels
    assert back.instance.frames[0].window == job.instance.frames[0].window


def test_a_header_comes_back_as_it_was_read_or_under_its_reason(tmp_path, dicom):
    reader = pytest.importorskip("hilum.client.intake.headers.read_instance")
    dicom(tmp_path / "a", np.arange(12, dtype=np.uint16).reshape(3, 4), PixelSpacing=[0.5, 0.25])
    dicom(tmp_path / "b", np.zeros((3, 4), np.uint16), Rows=None, SOPInstanceUID="1.2.3")
    (tmp_path / "c").write_bytes(b"no DICOM at all")
    with DecodePool(1) as pool:
        good, bad, none = pool.map([ReadHeader(tmp_path / name) for name in "abc"])
    assert good == HeaderRead(reader.read_with_pydicom(tmp_path / "a"))
    assert good.instance.frames[0].spacing_mm == (0.5, 0.25)
    assert (bad.reason, bad.uids[0]) == (Reason.MISSING_ATTRIBUTE, "1.2.3")
    assert none.reason == Reason.NOT_DICOM


def test_a_job_of_no_known_kind_is_not_done():
    with pytest.raises(KeyError):
        from_plain({"kind": "os.system", "job": {}})
