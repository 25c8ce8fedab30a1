"""Long-running commands end when they are asked to, with what they hold in order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hilum.common.errors import HilumError
from hilum.common.progress import Progress


class StoppedError(HilumError):
    """The person or the system asked the command to end. Whoever called says what was kept."""


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set, instead of ending the process where it stands."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Stoppable:
    """Progress that ends a long job between two files.

    Raises:
        StoppedError: From `advance`, once the event is set.
    """

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self._progress, self._stop = progress, stop

    def advance(self, done: int, note: str = "") -> None:
        """Pass the news on."""
        if self._stop.is_set():
            raise StoppedError
        self._progress.advance(done, note)
