"""Keeps one command running, and tells a living process from a hung one.

The command stamps a file in its own loop, not from a thread beside it, so a loop that hangs stops stamping. A stamp that
is too old means SIGKILL for the command and all of its group, and a fresh start. A command that ends is started again,
after a pause that grows, unless it ends with a code that says that starting it again can't help.
"""

import logging
import os
import random
import select
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hilum.common.files import private_folder
from hilum.common.processes import die_with_parent

FINAL = 77
"""The exit code of a command that must not be started again until someone has mended something (EX_NOPERM)."""

_STAMP = struct.Struct("<q")
_STAMP_EVERY_S = 0.2
_log = logging.getLogger(__name__)


class Stamp:
    """A file that tells when a process last moved, by the clock that all processes of a machine share.

    That clock counts from the machine's start, so setting the time of day changes nothing, and a sleeping machine does
    not age a stamp.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._touched_s = float("-inf")

    def touch(self) -> None:
        """Say that this process moves. Cheap enough for every step of a loop."""
        now = time.monotonic()
        if now - self._touched_s < _STAMP_EVERY_S:
            return
        self._touched_s = now
        # In place and unflushed: nobody needs it after a power cut, and eight bytes are written whole.
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(handle, _STAMP.pack(time.monotonic_ns()), 0)
        finally:
            os.close(handle)

    def age_s(self) -> float | None:
        """Seconds since the last touch, or None if there was none since the machine started."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if len(content) != _STAMP.size:
            return None
        age_s = (time.monotonic_ns() - _STAMP.unpack(content)[0]) / 1e9
        return age_s if age_s >= 0 else None


@dataclass(frozen=True)
class Bounds:
    """When a supervisor loses patience, in seconds.

    Attributes:
        max_age_s: A stamp that is older means a hung command.
        first_wait_s: The pause before the first restart; it doubles each time.
        longest_wait_s: Where it stops doubling.
        steady_s: A command that ran this long begins with the first pause again.
        polite_s: From SIGTERM to SIGKILL.
        look_s: How often the stamp is read.
    """

    max_age_s: float = 120.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    steady_s: float = 120.0
    polite_s: float = 8.0
    look_s: float = 1.0


def supervise(
    command: Sequence[str],
    stamp: Stamp,
    *,
    name: str,
    final: Collection[int] = (FINAL,),
    bounds: Bounds | None = None,
    environment: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Run a command until this process is asked to end (SIGTERM, SIGINT, SIGHUP) or the command ends for good.

    Call it in the main thread. What the command prints goes where this process prints.

    Args:
        command: The program and its arguments.
        stamp: The file that the command stamps.
        name: What the command is, in a line for people: "the link".
        final: Exit codes after which it is not started again; the command has said why.
        bounds: When to lose patience.
        environment: For the command, instead of this process's own.
        pass_fds: Open files that the command inherits, such as a lock.

    Returns:
        The final exit code, or 0 if this process was asked to end.
    """
    limits = bounds or Bounds()
    private_folder(stamp.path.parent)
    with _woken_by_signals() as signals:
        wait_s = limits.first_wait_s
        while True:
            began_s = time.monotonic()
            child = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a group of its own: a signal reaches all of it, and a terminal's none of it
                preexec_fn=die_with_parent,  # noqa: PLW1509 - it calls nothing but prctl
                pass_fds=pass_fds,
            )
            try:
                code = _watch(child, stamp, signals, limits, name)
            finally:
                _end(child, signals, limits)
            if code is None:
                return 0
            if code in final:
                _log.error("%s has ended for good: mend what the line above names, and start it again", name)
                return code
            if time.monotonic() - began_s > limits.steady_s:
                wait_s = limits.first_wait_s
            pause_s = wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            _log.warning("%s %s; starting it again in %.0f s", name, _ended(code), max(pause_s, 1.0))
            signals.wait_until(time.monotonic() + pause_s)
            if signals.stopping:
                return 0
            wait_s = min(2 * wait_s, limits.longest_wait_s)


def _watch(
    child: "subprocess.Popen[bytes]", stamp: Stamp, signals: "_Signals", limits: Bounds, name: str
) -> int | None:
    """Wait for a command's end and give its exit code, or None if this process was asked to end.

    A machine that slept or a stopped supervisor sees an old stamp that means nothing, so whenever this loop itself
    has been held up, the command gets its whole time again.
    """
    since_s = looked_s = time.monotonic()
    while not signals.stopping:
        code = child.poll()
        if code is not None:
            return code
        signals.wait(limits.look_s)
        now = time.monotonic()
        if now - looked_s > limits.look_s + limits.max_age_s / 4:
            since_s = now
        looked_s = now
        age_s = min(now - since_s, age if (age := stamp.age_s()) is not None else float("inf"))
        if age_s > limits.max_age_s and child.poll() is None:
            _log.error("%s has not moved for %.0f s: it hangs, and is killed", name, age_s)
            os.killpg(child.pid, signal.SIGKILL)
            return child.wait()
    return None


def _end(child: "subprocess.Popen[bytes]", signals: "_Signals", limits: Bounds) -> None:
    """End a command and what is left of its group: politely first, then at once."""
    until_s = time.monotonic() + limits.polite_s
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
        while child.poll() is None and time.monotonic() < until_s:
            signals.wait(min(0.2, limits.look_s))
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        _log.debug("nothing was left of the group")
    child.wait()


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


class _Signals:
    """Sleeps that any signal cuts short: also that of a child's end, so nothing polls."""

    def __init__(self, wake: int) -> None:
        self._wake = wake
        self.stopping = False

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def wait(self, seconds: float) -> None:
        ready, _, _ = select.select([self._wake], [], [], seconds)
        if ready:
            os.read(self._wake, 4096)

    def wait_until(self, until_s: float) -> None:
        while not self.stopping and (left_s := until_s - time.monotonic()) > 0:
            self.wait(left_s)


@contextmanager
def _woken_by_signals() -> Iterator[_Signals]:
    wake, written = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(written, False)
    signals = _Signals(wake)
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        signal.SIGTERM: signals.stop,
        signal.SIGINT: signals.stop,
        signal.SIGHUP: signals.stop,
        signal.SIGCHLD: lambda _number, _frame: None,  # a handler of its own, so that it writes to the pipe
    }
    # What is ignored stays ignored: so did whoever started this ask, such as nohup for SIGHUP.
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if number is signal.SIGCHLD or signal.getsignal(number) is not signal.SIG_IGN
    }
    woken = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(written)
