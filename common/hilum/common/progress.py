"""Progress as a bar on a terminal and as plain lines elsewhere; always on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PLAIN_INTERVAL_S = 5.0


class Progress(Protocol):
    """What a long job needs to tell."""

    def advance(self, done: int, note: str = "") -> None:
        """Say that `done` units of the total are finished."""


class NullProgress:
    """Tells nothing: for libraries and tests."""

    def advance(self, done: int, note: str = "") -> None:
        """Ignore the news."""


class Onward:
    """One of several jobs under one bar: counts on from what the jobs before it did."""

    def __init__(self, whole: Progress, before: int) -> None:
        self.whole, self.before = whole, before

    def advance(self, done: int, note: str = "") -> None:
        """Tell the whole."""
        self.whole.advance(self.before + done, note)


class _Lines:
    def __init__(self, title: str, total: int, interval_s: float) -> None:
        self.title, self.total, self.interval_s = title, total, interval_s
        self.started = self.said = time.monotonic()

    def advance(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if done < self.total and now - self.said < self.interval_s:
            return
        self.said = now
        pace = _pace(done, now - self.started)
        print(f"{self.title}: {done}/{self.total}{pace} {note}".rstrip(), file=sys.stderr, flush=True)


def _pace(done: int, elapsed_s: float) -> str:
    """Return how fast it goes: so many a second, or so many seconds each."""
    if not done or elapsed_s <= 0:
        return ""
    return f", {done / elapsed_s:.1f}/s" if done >= elapsed_s else f", {elapsed_s / done:.1f} s each"


@contextmanager
def progress_bar(title: str, total: int, *, interval_s: float = PLAIN_INTERVAL_S) -> Iterator[Progress]:
    """Show how far a job is.

    Args:
        title: What is being done.
        total: How many units there are.
        interval_s: How often a plain line is printed where stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield _Lines(title, total, interval_s)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, note="")

        class _Bar:
            def advance(self, done: int, note: str = "") -> None:
                bar.update(task, completed=done, note=note)

        yield _Bar()
