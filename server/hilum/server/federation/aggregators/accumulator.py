"""A weighted mean that is the same for every order of arrival, in constant memory.

Updates lie on a grid of 2**-40 (see `hilum.common.weights`) and weigh whole numbers, so their weighted sum is a sum
of integers. Integer addition is associative: no order, no rounding, no difference. float64 sums are neither, in the
last bit. The mean of one site's update is that update, bit for bit.
"""

import math

import numpy as np
import numpy.typing as npt

from hilum.common.weights import GRID_BITS, MAX_ABS_CHANGE, FlatWeights

_TILE = 1 << 15  # stays in the processor's second-level cache
_VALUE_BITS = 63


class FixedPointMean:
    """Streams updates into one int64 accumulator.

    Args:
        size: P.
        most_weight: An upper bound on the sum of all weights that will be added.
    """

    def __init__(self, size: int, most_weight: int) -> None:
        # Sums stay below 2**63. Below 2**20 examples the grid is the updates' own; beyond, it is coarser.
        head = math.ceil(math.log2(MAX_ABS_CHANGE)) + most_weight.bit_length()
        self.bits = min(GRID_BITS, _VALUE_BITS - head)
        self.most_weight = most_weight
        self.sum = np.zeros(size, np.int64)
        self.weight = 0

    def add(self, update: FlatWeights, weight: int) -> None:
        """Add one update.

        Args:
            update: (P,), finite, within `MAX_ABS_CHANGE`.
            weight: At least 1.

        Raises:
            ValueError: If the weights added so far would exceed the bound.
        """
        if weight < 1 or self.weight + weight > self.most_weight:
            raise ValueError(
                f"a weight of {weight} on top of {self.weight} exceeds the bound of {self.most_weight}"
            )
        scale = 2.0**self.bits
        for start in range(0, len(self.sum), _TILE):
            tile = update[start : start + _TILE].astype(np.float64)
            tile *= scale
            np.rint(tile, out=tile)
            # Exact: a float32 has 24 significant bits and a weight at most 20, so the product fits into 53.
            tile *= weight
            self.sum[start : start + _TILE] += tile.astype(np.int64)
        self.weight += weight

    def mean(self) -> npt.NDArray[np.float64]:
        """Return (P,) the weighted mean.

        Raises:
            ValueError: If nothing was added.
        """
        if self.weight == 0:
            raise ValueError("no update was added")
        mean: npt.NDArray[np.float64] = self.sum / self.weight
        return np.ldexp(mean, -self.bits, out=mean)
