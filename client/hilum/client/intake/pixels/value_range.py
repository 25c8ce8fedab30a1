"""Between which bounds whole numbers lie, looked at only where their type leaves it open."""

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt


class ValueRange:
    """The lowest and the highest of some whole numbers. Each costs a look at all of them, once, if it is asked for.

    Args:
        values: At least one.
    """

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values

    def within(self, low: int, high: int) -> bool:
        """Tell whether all lie between two bounds, both included."""
        least, greatest = _LIMITS[self._values.dtype.str[1:]]
        return (low <= least or low <= self._lowest) and (greatest <= high or self._highest <= high)

    @cached_property
    def _lowest(self) -> int:
        return int(self._values.min())

    @cached_property
    def _highest(self) -> int:
        return int(self._values.max())


_LIMITS = {
    f"{kind}{size}": (int(np.iinfo(f"{kind}{size}").min), int(np.iinfo(f"{kind}{size}").max))
    for kind in "iu"
    for size in (1, 2, 4, 8)
}


def is_constant(values: npt.NDArray[Any]) -> bool:
    """Tell whether all values are equal; a few of them tell nearly always. What is not a number equals nothing."""
    flat = values.reshape(-1)
    if not flat.size or (flat[:: max(1, flat.size // _SAMPLE)] != flat[0]).any():
        return False
    return bool((flat == flat[0]).all())


_SAMPLE = 1024
