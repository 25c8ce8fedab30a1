"""What crosses between a decoding process and its parent: arrays, and facts as JSON takes them."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Write: TypeAlias = Callable[[Array], None]
"""Appends one array to the answer."""
Facts: TypeAlias = dict[str, Any] | None
"""What an answer holds beside arrays, as JSON takes it."""


def as_bytes(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """(1, 1, N): numbers of eight bytes as bytes, which may cross, in a shape that no image or plane has; not empty."""
    return np.ascontiguousarray(array).reshape(1, 1, -1).view(np.uint8)


def from_bytes(run: Array, dtype: type[np.generic]) -> Array:
    """Return the inverse of `as_bytes`, on one such array as it arrived.

    Raises:
        ValueError: If it is none.
    """
    if run.ndim != 4 or run.shape[:3] != (1, 1, 1) or run.dtype != np.uint8:  # noqa: PLR2004 - one array of three axes
        raise ValueError("no bytes")
    return np.frombuffer(run.tobytes(), dtype)
