"""Ctrl-C and SIGTERM: the command unwinds, says in one line how to go on, and ends at once.

What must survive is on disk at any moment, so nothing waits for threads that are still at work. A second signal ends the
process where it stands.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from hilum.common.errors import HilumError, RunError
from hilum.common.machine import machine_problem

_AGAIN = "run the command again: what is done is kept"


class Interrupted(BaseException):
    """The person or the system asked this process to end. No `except Exception` holds it up.

    Attributes:
        number: The signal.
        advice: How to go on; the innermost that knows says it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.advice: str | None = None

    @property
    def exit_code(self) -> int:
        """What a shell gives a program that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number

    def __str__(self) -> str:
        what = (
            "stopped by Ctrl-C" if self.number == signal.SIGINT else "stopped: this process was asked to end"
        )
        return f"{what}; {self.advice or _AGAIN}"


def raise_on_signals() -> None:
    """From now on SIGINT and SIGTERM raise `Interrupted` in the main thread, where they are not ignored."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked:
            os._exit(128 + number)
        asked.append(number)
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # so did whoever started this ask
            signal.signal(number, ask)


@contextmanager
def going_on(advice: str) -> Iterator[None]:
    """Say how to go on if the block is interrupted, or the machine refuses what it needs.

    Raises:
        Interrupted: With the advice.
        RunError: If a disk is full, or the like.
    """
    try:
        yield
    except Interrupted as stop:
        stop.advice = stop.advice or advice
        raise
    except HilumError:
        raise
    except Exception as error:
        problem = machine_problem(error)
        if problem is None or os.environ.get("HILUM_DEBUG"):
            raise
        raise RunError(f"{problem}; {advice}") from error


def end(stop: Interrupted) -> NoReturn:
    """Say how to go on, and end without waiting for threads that are at work."""
    try:
        sys.stderr.write(f"{stop}\n")
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(stop.exit_code)
