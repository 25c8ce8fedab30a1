"""Starting and ending the processes of a deployment."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from hilum.common.errors import RunError

_PATIENCE_S = 10.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def program(name: str) -> str:
    """Return the path of a program that was installed beside this Python.

    Raises:
        RunError: If it is not there.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise RunError(f"the program {name} is missing; install Hilum again (it comes with Flower)")
    return found


def free_port() -> int:
    """Return a TCP port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_parent() -> None:
    """In a new child: ask the kernel to end it when its parent dies, even by SIGKILL (Linux; nothing elsewhere)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_group(child: "subprocess.Popen[str]") -> None:
    """End a process that leads its own group, and all that it started: politely first, then at once."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            continue
    child.wait()
