"""A round's state on disk, written beside the training: copied once, then put away by a thread."""

import logging
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from hilum.client.pretraining.checkpoint import load_state, save_state
from hilum.client.pretraining.step import StepOutcome
from hilum.common.methods import SSLMethod

_log = logging.getLogger(__name__)
_FORMAT = 4  # of a step checkpoint; one of another format is not taken up
_MINUTE_S = 60.0


class StepCheckpoints:
    """The newest step of a round that can be gone on from.

    Args:
        path: Of the file; None keeps nothing.
        writes: Whether this process writes it; of several that train together one does, and all of them go on from it.
        round_number: Of the round.
        start: Names the weights and images that the round starts from; a file of others is not taken up.
        minutes: From one to the next.
    """

    def __init__(
        self, path: Path | None, round_number: int, start: str, minutes: float, *, writes: bool = True
    ) -> None:
        self.path, self.seconds, self.writes = path, minutes * _MINUTE_S, writes
        self._head = {"format": _FORMAT, "round": round_number, "start": start}
        self._last = time.monotonic()
        self._writing: threading.Thread | None = None
        self._error: BaseException | None = None

    def restore(self, method: SSLMethod, optimizer: torch.optim.Optimizer) -> tuple[int, list[StepOutcome]]:
        """Take up what was kept of this round, if anything was; give the next step and the steps' outcomes so far."""
        state = load_state(self.path) if self.path else None
        if state is None or any(state.get(key) != value for key, value in self._head.items()):
            return 0, []
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in optimizer.state.items():
            for name, value in moments.items():
                if value.shape == parameter.shape:  # they lie as the weights do here, however they lay there
                    moments[name] = torch.empty_like(parameter).copy_(value)
        return state["next_step"], [StepOutcome(**outcome) for outcome in state["outcomes"]]

    def is_due(self) -> bool:
        """Tell whether the last one was long enough ago.

        Raises:
            OSError: If the last one could not be written.
        """
        if self._error is not None:
            self.finish()
        return self.writes and self.path is not None and time.monotonic() - self._last >= self.seconds

    def keep(
        self,
        method: SSLMethod,
        optimizer: torch.optim.Optimizer,
        next_step: int,
        outcomes: list[StepOutcome],
    ) -> None:
        """Copy the state and have it written.

        Raises:
            OSError: If the one before could not be written.
        """
        self.finish()
        self._last = time.monotonic()
        state = {
            **self._head,
            "next_step": next_step,
            "outcomes": [asdict(outcome) for outcome in outcomes],
            "method": _copy(method.state_dict()),
            "optimizer": _copy(optimizer.state_dict()),
        }
        copied = None
        if next(method.parameters()).is_cuda:
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record()
        self._writing = threading.Thread(target=self._write, args=(state, copied), name="step checkpoint")
        self._writing.start()

    def finish(self) -> None:
        """Wait until what was kept is on disk.

        Raises:
            OSError: If it could not be written.
        """
        if self._writing is not None:
            self._writing.join()
        self._writing = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def drop(self) -> None:
        """Remove the file: the round is done."""
        self.finish()
        if self.writes and self.path is not None:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, raised: type[BaseException] | None, *_more: object) -> None:
        """See that nothing is half written, however the round went."""
        try:
            self.finish()
        except OSError as error:
            if raised is None:
                raise
            _log.warning("the last step checkpoint could not be written (%s)", error.strerror)

    def _write(self, state: dict[str, Any], copied: Any) -> None:
        try:
            if copied is not None:
                copied.synchronize()
            assert self.path is not None, "nothing is kept without a path"
            save_state(self.path, state)
        except BaseException as error:  # raised by `finish`
            self._error = error


def _copy(value: Any) -> Any:
    """Copy the tensors of a state; those on a GPU to page-locked memory, behind what the GPU has still to do."""
    if isinstance(value, Tensor):
        if value.device.type != "cuda":
            return value.detach().clone()
        try:
            held = torch.empty_like(value, device="cpu", pin_memory=True)
        except RuntimeError:  # no more memory can be page-locked; the copy then waits for the device
            held = torch.empty_like(value, device="cpu")
        return held.copy_(value.detach(), non_blocking=held.is_pinned())
    if isinstance(value, dict):
        return {key: _copy(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(one) for one in value]
    return value
