"""What `hilum admin` answered, and what it left behind."""

import socket
import stat
import sys
import time
from pathlib import Path

HILUM = str(Path(sys.executable).parent / "hilum")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, patience_s=60.0):
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.05)


def works(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


def modes(folder):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
