"""Decoding where a file can do no harm: in processes with bounded memory and time that the parent outlives.

The parent never looks at a file's bytes. A worker that crashes, hangs or takes too much memory costs the one file that
it was given, under its reason; it is replaced, and the other files go on. On Linux the memory bound is held by the
system (RLIMIT_AS); on macOS it is advisory.
"""

import json
import logging
import math
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from hilum.client.intake.formats.ipc import Array
from hilum.client.intake.pixels.decoders import log_decoders
from hilum.client.intake.pixels.size_checks import MAX_DECODED_BYTES, MEMORY_BYTES
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox.handlers import KINDS
from hilum.client.intake.sandbox.jobs import Job, Refused, Result
from hilum.client.intake.sandbox.limits import TIMEOUT_S, held_bytes, limit_s
from hilum.client.intake.sandbox.messages import kind_of, to_plain
from hilum.common.errors import RunError

_START_TIMEOUT_S = 120.0
_MAX_FAILED_STARTS = 3
_JOBS_OF_A_WORKER = 2_000  # then it is replaced, for decoders leak
_AHEAD = 4  # jobs begun for each worker before the first result is taken
_QUEUED = 2  # jobs given to a worker at a time: it goes on while its last answer is read
_HELD_BYTES = 256 << 20  # of results that the caller has not taken yet; then no job is begun ahead
_LENGTH_BYTES = 4
_MAX_REPLY_BYTES = 16 << 20
_DTYPES = {"|u1", "<u2", "<i2", "<f4"}

log = logging.getLogger(__name__)


@dataclass
class _Task:
    """A job on its way, and how long it may take."""

    number: int
    job: Job
    limit_s: float


@dataclass
class _Worker:
    """One process and its pipes.

    Attributes:
        outputs: It writes the arrays of its answers into these, one after the other in turn.
        deadline_s: When the first of its tasks must be done.
        tasks: What it was given, in order.
    """

    process: subprocess.Popen[bytes]
    jobs: int
    replies: int
    outputs: tuple[IO[bytes], ...]
    deadline_s: float
    ready: bool = False
    done: int = 0
    tasks: deque[_Task] = field(default_factory=deque)
    received: bytearray = field(default_factory=bytearray)

    @property
    def waited_for(self) -> bool:
        """Whether it has to say something."""
        return bool(self.tasks) or not self.ready

    def begin(self) -> None:
        """Give the first task its time."""
        self.deadline_s = time.monotonic() + self.tasks[0].limit_s

    def close(self) -> None:
        """End the process at once: it holds nothing that anyone waits for."""
        for pipe in (self.jobs, self.replies):
            with suppress(OSError):
                os.close(pipe)
        self.process.kill()
        self.process.wait()
        for output in self.outputs:
            output.close()


class DecodePool:
    """A pool of decoding processes.

    Args:
        workers: How many processes.
        memory_bytes: Address space that each may take beyond what it starts with.
        timeout_s: For a small file; see `limits.limit_s`.
        scratch: A folder for the arrays on their way, under no name and gone with the pool; best on a fast disk
            with room for the frames of the two largest files a worker. The system's temporary folder where it is None.

    Raises:
        RunError: From `map`, if processes can't be started, or the scratch folder is full.
    """

    def __init__(
        self,
        workers: int,
        *,
        memory_bytes: int = MEMORY_BYTES,
        timeout_s: float = TIMEOUT_S,
        scratch: Path | None = None,
    ) -> None:
        self._count = max(workers, 1)
        self._memory_bytes, self._timeout_s, self._scratch = memory_bytes, timeout_s, scratch
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._failed_starts = 0
        self._busy = False

    def __enter__(self) -> Self:
        log_decoders()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for worker in list(self._workers):
            self._remove(worker)
        self._selector.close()

    def map(self, jobs: Iterable[Job]) -> Generator[Result, None, None]:
        """Do jobs, giving the results in their order, whatever the number of workers.

        Jobs are taken from the iterable as workers get free, and no more results than a few a worker wait for the
        caller, fewer where they are large, so memory does not grow with the archive.
        """
        assert not self._busy, "one map at a time"
        self._busy = True
        try:
            yield from self._results(enumerate(jobs))
        finally:
            for worker in [one for one in self._workers if one.tasks]:
                self._remove(worker)
            self._busy = False

    def _results(self, jobs: Iterator[tuple[int, Job]]) -> Iterator[Result]:
        waiting: deque[_Task] = deque()
        results: dict[int, Result] = {}
        following, exhausted = 0, False
        taken = 0
        while True:
            ahead = _AHEAD * self._count if sum(map(held_bytes, results.values())) < _HELD_BYTES else 1
            while not exhausted and taken - following < ahead and len(waiting) < self._count:
                number, job = next(jobs, (-1, None))
                if job is None:
                    exhausted = True
                else:
                    waiting.append(_Task(number, job, limit_s(job, self._timeout_s)))
                    taken += 1
            self._assign(waiting)
            while following in results:
                yield results.pop(following)
                following += 1
            if exhausted and following == taken:
                return
            if following not in results and any(one.waited_for for one in self._workers):
                self._wait(waiting, results)

    def _assign(self, waiting: deque[_Task]) -> None:
        """Give jobs to workers, free ones first, starting processes only for work that is there."""
        busy = sum(bool(one.tasks) for one in self._workers)
        while len(self._workers) < min(self._count, busy + len(waiting)):
            self._start()
        for held in range(_QUEUED):
            for worker in list(self._workers):
                if waiting and worker.ready and len(worker.tasks) == held:
                    self._send(worker, waiting.popleft(), waiting)

    def _send(self, worker: _Worker, task: _Task, waiting: deque[_Task]) -> None:
        message = json.dumps({**to_plain(task.job), "timeout_s": task.limit_s}).encode()
        worker.tasks.append(task)
        if len(worker.tasks) == 1:
            worker.begin()
        content = memoryview(len(message).to_bytes(_LENGTH_BYTES, "little") + message)
        try:
            while content:
                content = content[os.write(worker.jobs, content) :]
        except BrokenPipeError:  # what it died of is told by what it answered, or did not
            if len(worker.tasks) == 1:  # it was idle, which no file is to blame for
                self._give_up(worker, waiting)

    def _wait(self, waiting: deque[_Task], results: dict[int, Result]) -> None:
        """Take what comes first: an answer, a death, or the end of somebody's time."""
        now = time.monotonic()
        first = min(one.deadline_s for one in self._workers if one.waited_for)
        for key, _events in self._selector.select(max(first - now, 0)):
            self._read(key.data, waiting, results)
        now = time.monotonic()
        for worker in [one for one in self._workers if one.waited_for]:
            if now >= worker.deadline_s:
                if not worker.tasks:
                    self._start_failed(worker)
                else:
                    self._settle(worker, Refused(Reason.DECODER_TIMEOUT), results)
                    self._give_up(worker, waiting)

    def _read(self, worker: _Worker, waiting: deque[_Task], results: dict[int, Result]) -> None:
        """Take what a worker wrote; nothing at all means that it died."""
        try:
            content = os.read(worker.replies, 1 << 16)
        except BlockingIOError:
            return
        worker.received += content
        if not content or len(worker.received) > _MAX_REPLY_BYTES:
            self._died(worker, Reason.DECODER_DIED, waiting, results)
            return
        while worker in self._workers and (reply := _message(worker.received)) is not None:
            self._answered(worker, reply, waiting, results)

    def _answered(
        self, worker: _Worker, reply: dict[str, Any], waiting: deque[_Task], results: dict[int, Result]
    ) -> None:
        status = reply.get("status")
        if not worker.tasks:
            worker.ready = status == "ready"
            self._failed_starts = 0
        elif status == "memory":
            self._died(worker, Reason.TOO_LARGE, waiting, results)
        elif status == "no_room":
            raise RunError(
                "a decoded image could not be written: the scratch folder is full; make room and go on"
            )
        else:
            output = worker.outputs[worker.done % len(worker.outputs)]
            result = _result(worker.tasks[0].job, reply, output)
            if result is None:
                self._died(worker, Reason.DECODER_DIED, waiting, results)
                return
            self._settle(worker, result, results)
            if worker.done >= _JOBS_OF_A_WORKER:
                self._give_up(worker, waiting)

    def _died(
        self, worker: _Worker, reason: Reason, waiting: deque[_Task], results: dict[int, Result]
    ) -> None:
        """Count a file under its reason, unless an earlier file may be to blame: then it is tried afresh."""
        if not worker.tasks and not worker.ready:
            self._start_failed(worker)
            return
        if worker.tasks and not worker.done:
            self._settle(worker, Refused(reason), results)
        self._give_up(worker, waiting)

    def _settle(self, worker: _Worker, result: Result, results: dict[int, Result]) -> None:
        results[worker.tasks.popleft().number] = result
        worker.done += 1
        if worker.tasks:
            worker.begin()

    def _give_up(self, worker: _Worker, waiting: deque[_Task]) -> None:
        """End a worker; what it had not begun, or is not to blame for, goes to another."""
        waiting.extendleft(reversed(worker.tasks))
        self._remove(worker)

    def _start(self) -> None:
        """Start one process: a fresh interpreter, which imports nothing of the caller's."""
        jobs_read, jobs = os.pipe()
        replies, replies_write = os.pipe()
        outputs = tuple(tempfile.TemporaryFile(dir=self._scratch) for _ in range(_QUEUED))  # noqa: SIM115 - closed with the worker
        passed = (jobs_read, replies_write, *(output.fileno() for output in outputs))
        numbers = [*passed[:2], self._memory_bytes, os.getpid(), *passed[2:]]
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", *_WORKER, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=passed,
                env={**os.environ, **_ONE_THREAD, **_KEEP_MEMORY},
                start_new_session=True,  # an interrupt at the terminal is the parent's to handle
            )
        except OSError:
            raise RunError("no decoding process can be started; is the machine out of memory?") from None
        finally:
            os.close(jobs_read)
            os.close(replies_write)
        os.set_blocking(replies, False)
        worker = _Worker(process, jobs, replies, outputs, time.monotonic() + _START_TIMEOUT_S)
        self._workers.append(worker)
        self._selector.register(replies, selectors.EVENT_READ, worker)

    def _start_failed(self, worker: _Worker) -> None:
        self._remove(worker)
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise RunError(
                "the decoding processes end as soon as they start: this user needs more memory or larger files (`ulimit -v`, "
                "`ulimit -f`), or Hilum must be installed again"
            )

    def _remove(self, worker: _Worker) -> None:
        self._selector.unregister(worker.replies)
        self._workers.remove(worker)
        worker.close()


_WORKER = ("-m", "hilum.client.intake.sandbox.worker")
# Frames come and go by the half megabyte: glibc keeps that much instead of asking the system for each again.
_KEPT_BYTES = str(64 << 20)
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": _KEPT_BYTES, "MALLOC_MMAP_THRESHOLD_": _KEPT_BYTES}
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _message(received: bytearray) -> dict[str, Any] | None:
    """Take a whole reply, or None while it is not all there. What is not a reply at all is an empty one."""
    if len(received) < _LENGTH_BYTES:
        return None
    end = _LENGTH_BYTES + int.from_bytes(received[:_LENGTH_BYTES], "little")
    if len(received) < end <= _MAX_REPLY_BYTES:
        return None
    try:
        reply = json.loads(received[_LENGTH_BYTES:end])
    except ValueError:
        return {}
    finally:
        del received[:end]
    return reply if isinstance(reply, dict) else {}


def _result(job: Job, reply: dict[str, Any], output: IO[bytes]) -> Result | None:
    """Return a worker's answer, checked like anything from outside; None where it is not an answer to this job."""
    try:
        if reply["status"] == "refused":
            sop, series, study = map(str, reply["uids"])
            return Refused(Reason(reply["reason"]), (sop, series, study))
        return KINDS[kind_of(job)].result(job, _arrays(reply["arrays"], output), reply["facts"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _arrays(heads: list[Any], output: IO[bytes]) -> list[Array]:
    """Return what a worker wrote; arrays of one shape and dtype that follow one another come stacked, without a copy."""
    size_bytes = os.fstat(output.fileno()).st_size
    runs = [
        (dtype, (len(list(alike)), *map(int, shape)))
        for (dtype, shape), alike in groupby((str(dtype), tuple(shape)) for dtype, shape in heads)
    ]
    if any(dtype not in _DTYPES or min(shape) < 1 for dtype, shape in runs):
        raise ValueError("no arrays that a job gives")
    claimed = sum(math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in runs)
    if claimed != size_bytes or size_bytes > MAX_DECODED_BYTES:
        raise ValueError("what was written is not what was announced")
    output.seek(0)
    return [np.fromfile(output, dtype, math.prod(shape)).reshape(shape) for dtype, shape in runs]
