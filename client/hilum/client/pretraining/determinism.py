"""The same bits in each run on one kind of GPU (`training.deterministic`), for what it costs in time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic

_lock = threading.Lock()
_within = 0
"""How many trainings of this process want it now: the switches are the process's, and simulated sites are its threads."""


@contextmanager
def determinism(wanted: bool, device: torch.device) -> Iterator[None]:
    """Let kernels whose sums have no order be replaced, or refused; on a processor there are none.

    Of the fused attentions, one alone has a backward pass with an order; where it does not serve, attention is computed from
    plain products.

    Args:
        wanted: Whether to.
        device: What is trained on.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def _enter(step: int) -> None:
    """Turn the switches with the first that comes, and back with the last that goes."""
    global _within  # noqa: PLW0603 - as the switches are
    with _lock:
        _within += step
        ordered = _within > 0
        torch.use_deterministic_algorithms(ordered)
        # Nothing here reads memory that nobody wrote.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cuda.enable_mem_efficient_sdp(not ordered)
        torch.backends.cuda.enable_cudnn_sdp(not ordered)
