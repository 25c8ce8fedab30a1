"""One process at a time: a lock file, held for whoever has it open, and let go of by the kernel whatever ends it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hilum.common.errors import RunError

_PROBED_S = 0.5  # `is_held` takes a lock for a moment
_LOOK_EVERY_S = 0.05


def take(path: Path, problem: str, *, patience_s: float = _PROBED_S) -> BinaryIO:
    """Take a lock file, until what is given back is closed.

    Args:
        path: The file; made, for its owner alone, if it is missing.
        problem: What to say if another process has it.
        patience_s: How long to wait for that one.

    Raises:
        RunError: With the problem.
        OSError: If the file can't be opened.
    """
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    until = time.monotonic() + patience_s
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise RunError(problem) from None
                time.sleep(_LOOK_EVERY_S)
            else:
                return file
    except BaseException:
        file.close()
        raise


@contextmanager
def only_one(path: Path, problem: str, *, patience_s: float = _PROBED_S) -> Iterator[int]:
    """Hold a lock file inside the block; gives its descriptor, for children that are to hold it too. See `take`."""
    with take(path, problem, patience_s=patience_s) as file:
        yield file.fileno()


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
