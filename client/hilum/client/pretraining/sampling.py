"""Which images a step sees: the first seam of the loop.

A sampler gives the whole round's plan before the round begins, from seeds alone. Patient-level DP-SGD fills this seam
with Poisson sampling of patients.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from hilum.common.seeding import generator

Rows = npt.NDArray[np.int64]
StepRows = tuple[Rows, ...]  # the micro-batches whose gradients one step sums


class Sampler(Protocol):
    """Plans a round."""

    def plan(self, seed: int, site: str, round_number: int) -> list[StepRows]:
        """Return every step of the round, in order."""


class ShuffledEpochs:
    """Each epoch sees every image once, in a new order, in batches of nearly equal size."""

    def __init__(self, rows: Rows, *, batch_size: int, accumulate: int, epochs: int) -> None:
        self.rows, self.batch_size, self.accumulate, self.epochs = rows, batch_size, accumulate, epochs

    def plan(self, seed: int, site: str, round_number: int) -> list[StepRows]:
        """Return every step of the round, in order."""
        steps: list[StepRows] = []
        for epoch in range(self.epochs):
            order = generator(seed, site, "round", round_number, "epoch", epoch).permutation(self.rows)
            batches = np.array_split(order, -(-len(order) // self.batch_size))
            steps += [
                tuple(batches[start : start + self.accumulate])
                for start in range(0, len(batches), self.accumulate)
            ]
        return steps
