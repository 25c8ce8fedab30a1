"""The supervisor: what ends is started again, what hangs is killed, and a stop leaves nothing behind."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hilum.common.supervise import FINAL, Stamp

SUPERVISOR = """
import logging, sys
from pathlib import Path
from hilum.common.supervise import Bounds, Stamp, supervise
logging.basicConfig(format="%(message)s", level=logging.INFO)
folder = Path(sys.argv[1])
first, longest = float(sys.argv[3]), float(sys.argv[4])
bounds = Bounds(
    max_age_s=1.0, first_wait_s=first, longest_wait_s=longest, steady_s=0.8, polite_s=1.0, look_s=0.1
)
sys.exit(supervise([sys.executable, "-c", sys.argv[2]], Stamp(folder / "stamp"), name="the work", bounds=bounds))
"""

HEAD = """
import os, signal, subprocess, sys, time
from pathlib import Path
from hilum.common.supervise import Stamp
folder = Path({folder!r})
with (folder / "runs").open("a") as runs:
    runs.write(f"{{os.getpid()}} {{time.monotonic()}}\\n")
stamp = Stamp(folder / "stamp")
run = len((folder / "runs").read_text().splitlines())
"""

STEADY = "\nwhile True:\n    stamp.touch()\n    time.sleep(0.05)\n"


class Supervised:
    def __init__(self, folder: Path, body: str, before=(), waits_s=(0.2, 0.4)) -> None:
        self.folder = folder
        script = HEAD.format(folder=str(folder)) + body
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-c", SUPERVISOR, str(folder), script, *map(str, waits_s)],
                stderr=log,
                stdout=log,
            )

    def runs(self) -> list[tuple[int, float]]:
        path = self.folder / "runs"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), float(when)) for pid, when in (line.split() for line in lines)]

    def wait_for_runs(self, count: int) -> list[tuple[int, float]]:
        wait_until(lambda: len(self.runs()) >= count)
        return self.runs()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(5)


def wait_until(condition, patience_s=10.0):
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until, "gave up waiting"
        time.sleep(0.02)


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


@pytest.fixture
def supervised(tmp_path):
    made = []

    def start(body, **kinds):
        made.append(Supervised(tmp_path, body, **kinds))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()
        for pid, _ in one.runs():
            if is_there(pid):
                os.killpg(pid, signal.SIGKILL)


def test_a_stamp_tells_seconds_since_the_last_touch_whatever_the_time_of_day(tmp_path):
    stamp = Stamp(tmp_path / "stamp")
    assert stamp.age_s() is None
    stamp.touch()
    os.utime(stamp.path, (0, 0))  # as if the clock had been set
    assert 0 <= stamp.age_s() < 1
    time.sleep(0.25)
    assert 0.25 <= Stamp(stamp.path).age_s() < 1
    stamp.touch()
    assert stamp.age_s() < 0.2


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 7 + b"\x7f"])
def test_a_damaged_stamp_and_one_of_before_a_restart_of_the_machine_tell_nothing(tmp_path, content):
    (tmp_path / "stamp").write_bytes(content)
    assert Stamp(tmp_path / "stamp").age_s() is None


def test_a_command_that_ends_is_started_again_after_a_pause_that_grows_to_its_bound(supervised):
    work = supervised("sys.exit(3)")
    times = [when for _, when in work.wait_for_runs(5)]
    assert work.stop() == 0
    assert "the work ended with code 3; starting it again in 1 s" in work.log.read_text()
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[0] >= 0.1  # half of the first pause at least
    assert max(gaps) >= 0.2
    assert max(gaps) < 2


def test_a_command_that_ran_steadily_begins_with_the_first_pause_again(supervised):
    steady = (
        "until = time.monotonic() + 1\nwhile run == 6 and time.monotonic() < until:\n    stamp.touch()\n"
        "    time.sleep(0.05)\nsys.exit(3)"
    )
    work = supervised(steady, waits_s=(0.05, 60.0))
    times = [when for _, when in work.wait_for_runs(7)]
    assert (
        times[5] - times[4] > 0.4
    )  # the fifth pause: half of 0.8 s at least; the sixth would be 0.8 s at least
    assert times[6] - times[5] - 1.0 < 0.7


def test_a_final_code_ends_the_supervisor_with_the_same_code(supervised):
    work = supervised(f"sys.exit({FINAL})")
    assert work.process.wait(10) == FINAL
    assert len(work.runs()) == 1
    assert "the work has ended for good" in work.log.read_text()


def test_a_hung_command_and_what_it_started_are_killed_and_it_is_started_again(supervised, tmp_path):
    work = supervised(
        "if run == 1:\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "    (folder / 'grandchild').write_text(str(child.pid))\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    stamp.touch()\n"
        "    time.sleep(600)\n" + STEADY
    )
    (first, began), (_, again) = work.wait_for_runs(2)[:2]
    assert again - began > 1.0  # the age that is allowed
    assert "the work has not moved for 1 s: it hangs" in work.log.read_text()
    assert not is_there(first)
    assert not is_there(int((tmp_path / "grandchild").read_text()))
    time.sleep(1.5)
    assert len(work.runs()) == 2  # the second stamps and is left alone


def test_a_command_that_never_stamps_is_hung_too(supervised):
    work = supervised("time.sleep(600)")
    work.wait_for_runs(2)
    assert "has not moved" in work.log.read_text()


def test_an_old_stamp_is_not_held_against_a_new_process(supervised, tmp_path):
    Stamp(tmp_path / "stamp").touch()
    time.sleep(1.2)
    work = supervised("time.sleep(0.5)" + STEADY)
    time.sleep(1.5)
    assert len(work.runs()) == 1


def test_a_machine_that_slept_does_not_cost_a_healthy_command_its_life(supervised):
    work = supervised(STEADY)
    [(pid, _)] = work.wait_for_runs(1)
    time.sleep(0.3)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(work.process.pid, number)  # first the supervisor wakes, and sees an old stamp
        if number == signal.SIGSTOP:
            os.kill(pid, number)
            time.sleep(1.6)
    time.sleep(0.3)
    os.kill(pid, signal.SIGCONT)
    time.sleep(1.0)
    assert [run for run, _ in work.runs()] == [pid]
    assert is_there(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_ends_everything_politely(supervised, number):
    work = supervised(
        "def bye(*_):\n    (folder / 'bye').write_text('x')\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, bye)\n(folder / 'ready').write_text('x')" + STEADY
    )
    wait_until((work.folder / "ready").exists)
    work.process.send_signal(number)
    assert work.process.wait(5) == 0
    assert (work.folder / "bye").exists()
    assert not is_there(work.runs()[0][0])


def test_a_stop_ends_a_command_that_does_not_listen(supervised):
    work = supervised(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n(folder / 'ready').write_text('x')" + STEADY
    )
    wait_until((work.folder / "ready").exists)
    began = time.monotonic()
    assert work.stop() == 0
    assert 0.9 < time.monotonic() - began < 4
    assert not is_there(work.runs()[0][0])


def test_a_stop_in_a_pause_starts_nothing_more(supervised):
    work = supervised("sys.exit(3)")
    work.wait_for_runs(3)
    assert work.stop() == 0
    runs = len(work.runs())
    time.sleep(0.6)
    assert len(work.runs()) == runs


def test_a_supervisor_that_is_killed_takes_the_command_with_it(supervised):
    work = supervised(STEADY)
    [(pid, _)] = work.wait_for_runs(1)
    time.sleep(0.2)
    work.process.kill()
    work.process.wait()
    wait_until(lambda: not is_there(pid))


def test_a_supervisor_under_nohup_outlives_its_terminal(supervised):
    work = supervised(STEADY, before=("nohup",))
    work.wait_for_runs(1)
    work.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert work.process.poll() is None
    assert work.stop() == 0
