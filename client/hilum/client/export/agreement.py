"""What was written is read again, and must give what the network gives: on batches of several sizes, black and white ones too."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hilum.client.export.exportable import Exportable, largest_difference
from hilum.common.errors import RunError

_SIZES = (1, 2, 5)


def check_agreement(
    source: Exportable, run: Callable[[Tensor], Tensor | np.ndarray[Any, Any]], tolerance: float, called: str
) -> float:
    """Hold what a file gives against the network.

    Args:
        source: The network.
        run: Runs the file on a batch (B, C, *S).
        tolerance: The largest difference; of values above 1, as a share of the largest.
        called: What people call the file.

    Returns:
        The largest difference that was found.

    Raises:
        RunError: If it is larger than the tolerance.
    """
    batches = [source.example(count, seed=count) for count in _SIZES]
    batches += [torch.full_like(batches[0], value) for value in (0.0, 1.0)]
    with torch.no_grad():
        worst = max(largest_difference(run(batch), source.module(batch)) for batch in batches)
    if not worst <= tolerance:
        raise RunError(
            f"{called} gives other results than the network (they differ by {worst:.2g}, and {tolerance:g} is allowed); "
            "nothing was written"
        )
    return worst


def in_words(worst: float) -> str:
    """Say how far a file's results are from the network's."""
    if worst == 0:
        return "gives exactly what the network gives"
    return f"differs from the network by {worst:.0e} at most"


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep torch's exporters from telling of packages that are not needed, and of their own future."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
