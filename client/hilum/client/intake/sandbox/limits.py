"""What a job may take: time, which the parent watches, and memory, which the system bounds."""

import resource
import signal
import sys

import numpy as np

from hilum.client.intake.formats.folder_volume import ReadVolumes
from hilum.client.intake.pixels.size_checks import MAX_DECODED_BYTES
from hilum.client.intake.sandbox.jobs import DecodeImage, DecodePlanes, Job, ReadLabels, ReadObject, Result

TIMEOUT_S = 10.0
BYTES_A_SECOND = 1_000_000
"""A large file may take longer: one second more for each of these, several times slower than the slowest decoder."""
MAX_TIMEOUTS = 12
"""No file takes longer than this many times the limit, however large it is."""

_SAMPLES_A_SECOND = 2_000_000
"""Decoded: several times slower than the slowest decoder."""
_SEARCHED_A_SECOND = 500_000
"""Searched for text: several times slower than noise is."""
_MAX_SEARCHES = 14  # by `TextSearch`: twelve frames and the extremes over time
_READING_S = 20.0
"""To inflate a small file that holds much, and to import a reader for the first of its kind."""


def limit_s(job: Job, timeout_s: float) -> float:
    """Return the seconds that a job gets in all, where a small file gets `timeout_s`."""
    try:
        size_bytes = job.path.stat().st_size
    except OSError:
        size_bytes = 0
    wanted_s = timeout_s + size_bytes / BYTES_A_SECOND + more_seconds(job)
    return min(wanted_s, MAX_TIMEOUTS * timeout_s)


def more_seconds(job: Job) -> float:
    """Return what a job may take beyond the time of one frame: for more of them, for the search of text, for large volumes."""
    if isinstance(job, ReadVolumes | ReadLabels | ReadObject):
        return _READING_S
    if not isinstance(job, DecodeImage | DecodePlanes):
        return 0.0
    pixels, frames = job.instance.pixels, len(job.indices)
    seconds = (frames - 1) * pixels.rows * pixels.columns * pixels.samples / _SAMPLES_A_SECOND
    if isinstance(job, DecodeImage):
        searches = 0 if job.search is None else min(frames, _MAX_SEARCHES)
        seconds += searches * pixels.rows * pixels.columns * pixels.samples / _SEARCHED_A_SECOND
    return seconds


def held_bytes(result: Result) -> int:
    """Return how much memory the arrays of a result take."""
    parts = (
        part for value in vars(result).values() for part in (value if isinstance(value, tuple) else (value,))
    )
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


def bound_process(memory_bytes: int) -> None:
    """Bound this process's address space and files, so that an allocation fails instead of the machine.

    macOS takes the limit and does not hold it: there only the checks before decoding bound the memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the image
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_DECODED_BYTES, MAX_DECODED_BYTES))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if sys.platform == "linux":
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - a system file, read before any limit
            base_bytes = int(file.read().split()[0]) * resource.getpagesize()
        limit = base_bytes + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
