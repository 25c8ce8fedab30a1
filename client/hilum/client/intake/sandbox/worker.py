"""The process that decodes: `python -m hilum.client.intake.sandbox.worker`, started by `DecodePool` alone.

It takes jobs from one pipe, answers on another and writes arrays into open files. It has no standard streams and no
log, for the libraries inside quote what they read. Its memory, its file and its time are bounded by the system.
"""

import ctypes
import json
import logging
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from itertools import cycle
from typing import Any, BinaryIO

import numpy as np

from hilum.client.intake.formats.ipc import Array
from hilum.client.intake.pixels.size_checks import MAX_DECODED_BYTES
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.handlers import Kind
from hilum.client.intake.sandbox.limits import bound_process
from hilum.client.intake.sandbox.messages import from_plain

_LENGTH_BYTES = 4
_SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG
_GRACE_S = 5


@dataclass(frozen=True)
class Pipes:
    """The open files that the parent gave.

    Attributes:
        outputs: Each takes the arrays of one answer, in turn: the last one may still be read.
    """

    jobs: BinaryIO
    replies: int
    outputs: tuple[int, ...]


def main() -> None:
    """Work until the parent closes the pipe, or dies."""
    jobs, replies, memory_bytes, parent, *outputs = map(int, sys.argv[1:])
    _die_with(parent)
    _be_silent()
    bound_process(memory_bytes)
    _reply(replies, {"status": "ready"})
    with os.fdopen(jobs, "rb") as pipe:
        _serve(Pipes(pipe, replies, tuple(outputs)))


def _serve(pipes: Pipes) -> None:
    for output in cycle(pipes.outputs):
        head = pipes.jobs.read(_LENGTH_BYTES)
        if len(head) < _LENGTH_BYTES:
            return
        message = json.loads(pipes.jobs.read(int.from_bytes(head, "little")))
        # A worker whose parent is gone ends by itself, also where the system does not see to it.
        signal.alarm(int(message["timeout_s"]) + _GRACE_S)
        reply = _done(message, output)
        signal.alarm(0)
        _reply(pipes.replies, reply)
        if reply["status"] == "memory":
            return  # what is left of the heap after that is no ground to judge the next file on


def _done(message: dict[str, Any], output: int) -> dict[str, Any]:
    """Do one job. Whatever is raised ends here: as a reason, and nothing of the file with it."""
    kind: Kind | None = None
    try:
        os.lseek(output, 0, os.SEEK_SET)
        kind, job = from_plain(message)
        writer = _Writer(output)
        facts = kind.do(job, writer.write)
        os.ftruncate(
            output, writer.written
        )  # only now: writing over the last answer is cheaper than a new file
    except Skip as skip:
        return {"status": "refused", "reason": skip.reason.value, "uids": skip.uids}
    except MemoryError:
        return {"status": "memory"}
    except _NoRoom:
        return {"status": "no_room"}
    except BaseException:  # a decoder in Rust panics with a BaseException
        if kind is None:
            raise
        return {"status": "refused", "reason": kind.failed.value, "uids": ("", "", "")}
    return {"status": "done", "arrays": writer.heads, "facts": facts}


class _NoRoom(Exception):  # noqa: N818 - turned into a reply
    """The scratch folder can't take the answer."""


class _Writer:
    """Appends arrays to the output, and remembers their heads."""

    def __init__(self, output: int) -> None:
        self.heads: list[tuple[str, tuple[int, ...]]] = []
        self.written = 0
        self._output = output

    def write(self, array: Array) -> None:
        array = np.ascontiguousarray(array)
        self.written += array.nbytes
        if self.written > MAX_DECODED_BYTES:
            raise Skip(Reason.TOO_LARGE)
        rest = array.data.cast("B")
        try:
            while rest:
                rest = rest[os.write(self._output, rest) :]
        except OSError:
            raise _NoRoom from None
        self.heads.append((array.dtype.str, array.shape))


def _reply(replies: int, reply: dict[str, Any]) -> None:
    content = json.dumps(reply).encode()
    content = len(content).to_bytes(_LENGTH_BYTES, "little") + content
    while content:
        content = content[os.write(replies, content) :]


def _die_with(parent: int) -> None:
    """Have the system end this process when the parent ends. Elsewhere than on Linux the closed pipe does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _be_silent() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    main()
