"""Ctrl-C and SIGTERM end a command at once, with one line that says how to go on."""

import signal
import subprocess
import sys

import pytest

from hilum.common.errors import RunError
from hilum.common.interrupt import Interrupted, going_on

_PROGRAM = """
import sys, threading, time
from hilum.common import cli
def command():
    from hilum.common.interrupt import going_on
    threading.Thread(target=time.sleep, args=(600,)).start()  # a site at work; nobody waits for it
    with going_on("the same command with --resume goes on"):
        try:
            print("begun", flush=True)
            time.sleep(600)
        except Exception:
            sys.exit("an interrupt is not an exception")
cli.build = lambda: command
cli.main()
"""


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "stopped by Ctrl-C"), (signal.SIGTERM, 143, "asked to end")],
)
def test_a_signal_ends_a_command_although_threads_work_on(number, code, words):
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == code
    assert words in said
    assert said.strip().endswith("the same command with --resume goes on")
    assert said.count("\n") == 1


def test_the_innermost_advice_is_given():
    with pytest.raises(Interrupted) as stop, going_on("outer"), going_on("inner"):
        raise Interrupted(signal.SIGINT)
    assert str(stop.value) == "stopped by Ctrl-C; inner"


def test_a_full_disk_says_how_to_go_on_and_a_defect_stays_one():
    with pytest.raises(RunError, match=r"is full.*; go on with --resume"), going_on("go on with --resume"):
        raise OSError(28, "No space left on device")
    with pytest.raises(ZeroDivisionError), going_on("go on"):
        _ = 1 // 0
