"""One server on one state folder: its supervisor and the server itself hold a lock each."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hilum.common.errors import RunError

_PROBED_S = 0.5  # `is_held` takes a lock for a moment
SUPERVISOR_LOCK, SERVER_LOCK = "serve.lock", "server.lock"


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold a lock file for one process.

    Raises:
        RunError: If another process holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(handle)
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> None:
    until = time.monotonic() + _PROBED_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise RunError(
                    "a server runs on this state folder already; stop it first, or name another with --home"
                ) from None
            time.sleep(0.05)
        else:
            return


def is_held(path: Path) -> bool:
    """Tell whether a process holds a lock file."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
