"""Batches that are gathered and on the device before they are needed.

Shapes: n rows of a micro-batch here, N of the whole one, C channels, *S space.

A thread gathers while the device trains. On a GPU it gathers into page-locked memory, a ring of one buffer more than there are
batches ahead, and copies on a stream of its own, so that neither the trainer nor the GPU waits for memory.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

AHEAD = 2
"""Batches; one hides what it takes to gather, the other what that varies by."""
_LOOK_S = 0.1


@dataclass(frozen=True)
class Gathering:
    """What is to be gathered.

    Attributes:
        shape: (n, C, *S).
        into: Writes so many values into an array of that shape, uint16 and in C order.
        patients: (N,) patient numbers of the whole batch.
    """

    shape: tuple[int, ...]
    into: Callable[[npt.NDArray[np.uint16]], object] = field(repr=False)
    patients: npt.NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True)
class Staged:
    """A batch on the device.

    Attributes:
        stored: (n, C, *S) int16 that holds the bits of uint16.
        patients: (N,) int64.
    """

    stored: Tensor
    patients: Tensor


@contextmanager
def prefetched(gatherings: Iterable[Gathering], device: torch.device) -> Iterator[Iterator[Staged]]:
    """Gather in a thread, a few batches ahead, as long as the context lasts."""
    if device.type == "cuda":
        with closing(_Ahead(_on_gpu(gatherings, device))) as ahead:
            yield _received(ahead.items(), device)
    else:
        with closing(_Ahead(_in_memory(gatherings))) as ahead:
            yield ahead.items()


@dataclass(frozen=True)
class _Copying:
    """A batch that is on its way to a GPU."""

    staged: Staged
    copied: Any


class _Buffer:
    """Page-locked memory for one batch; it may be written again once what it held is copied."""

    def __init__(self) -> None:
        self._stored = torch.empty(0, dtype=torch.int16)
        self._patients = torch.empty(0, dtype=torch.int64)
        self.copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def of(self, gathering: Gathering) -> tuple[Tensor, Tensor]:
        """Return memory of a batch's shapes."""
        count, patients = int(np.prod(gathering.shape)), len(gathering.patients)
        if len(self._stored) < count:
            self._stored = torch.empty(count, dtype=torch.int16, pin_memory=True)
        if len(self._patients) < patients:
            self._patients = torch.empty(patients, dtype=torch.int64, pin_memory=True)
        return self._stored[:count].view(gathering.shape), self._patients[:patients]


def _in_memory(gatherings: Iterable[Gathering]) -> Iterator[Staged]:
    for gathering in gatherings:
        stored = torch.empty(gathering.shape, dtype=torch.int16)
        gathering.into(stored.numpy().view(np.uint16))
        yield Staged(stored, torch.from_numpy(gathering.patients))


def _on_gpu(gatherings: Iterable[Gathering], device: torch.device) -> Iterator[_Copying]:
    torch.cuda.set_device(device)  # of this thread
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ring = [_Buffer() for _ in range(AHEAD + 1)]
    for index, gathering in enumerate(gatherings):
        buffer = ring[index % len(ring)]
        buffer.copied.synchronize()
        stored, patients = buffer.of(gathering)
        gathering.into(stored.numpy().view(np.uint16))
        patients.copy_(torch.from_numpy(gathering.patients))
        with torch.cuda.stream(stream):
            staged = Staged(
                stored.to(device, non_blocking=True),
                patients.to(device, non_blocking=True),
            )
            buffer.copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            buffer.copied.record(stream)
        yield _Copying(staged, buffer.copied)


def _received(copying: Iterator[_Copying], device: torch.device) -> Iterator[Staged]:
    """Let the training's stream, and not this thread, wait for what is copied."""
    for one in copying:
        training = torch.cuda.current_stream(device)
        training.wait_event(one.copied)
        for tensor in (one.staged.stored, one.staged.patients):
            tensor.record_stream(training)  # its memory is not given away while the training reads it
        yield one.staged


class _End:
    """Stands in the queue behind the last batch, or in place of one that could not be gathered."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Ahead:
    """Runs an iterator in a thread, a few items ahead of who takes them."""

    def __init__(self, source: Iterator[Any]) -> None:
        self._found: queue.Queue[Any] = queue.Queue(AHEAD)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), daemon=True, name="prefetch")
        self._thread.start()

    def items(self) -> Iterator[Any]:
        """Yield what the thread has found, in order; raise what it has raised."""
        while not isinstance(found := self._found.get(), _End):
            yield found
        if found.error is not None:
            raise found.error

    def close(self) -> None:
        """End the thread."""
        self._is_over.set()
        self._thread.join()

    def _run(self, source: Iterator[Any]) -> None:
        end = _End()
        try:
            for one in source:
                if not self._put(one):
                    return
        except BaseException as error:  # raised where the batch is to be taken
            end = _End(error)
        self._put(end)

    def _put(self, one: Any) -> bool:
        """Wait for room; tell whether anybody still wants it."""
        while not self._is_over.is_set():
            try:
                self._found.put(one, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False
