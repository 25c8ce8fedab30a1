"""Which images a step sees: the first seam of the loop.

A sampler gives the whole round's plan before the round begins. That of ordinary training comes from seeds alone. A round that
was interrupted asks for its plan again and must get the same one: a sampler that draws from the operating system, since
whoever knows the seed must not know who was drawn, keeps what it drew.

Shapes: n rows of a micro-batch.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hilum.common.seeding import generator

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """One micro-batch.

    Attributes:
        rows: (n,) rows of the prepared images.
        patients: (n,) patient numbers: who stands behind each row.
        origins: (n, dims) where in its array each row's image begins, z or y first; None where arrays are images.
    """

    rows: Rows = field(repr=False)
    patients: Rows = field(repr=False)
    origins: Rows | None = field(repr=False, default=None)


StepDraws = tuple[Draws, ...]
"""The micro-batches whose gradients one step sums; none, where nobody was drawn."""


class Sampler(Protocol):
    """Plans a round."""

    def plan(self, seed: int, site: str, round_number: int) -> list[StepDraws]:
        """Return every step of the round, in order; at least one of them sees an image."""


class ShuffledEpochs:
    """Each epoch sees every image once, in a new order, in batches of nearly equal size.

    Args:
        rows: (N,) what is trained on.
        group: The patient number of every row of the prepared images.
        batch_size: At most so many rows in a micro-batch.
        accumulate: Micro-batches in a step.
        epochs: How many there are in a round.
    """

    def __init__(self, rows: Rows, group: Rows, *, batch_size: int, accumulate: int, epochs: int) -> None:
        self.rows, self.group = rows, group
        self.batch_size, self.accumulate, self.epochs = batch_size, accumulate, epochs

    def plan(self, seed: int, site: str, round_number: int) -> list[StepDraws]:
        """See `Sampler`."""
        steps: list[StepDraws] = []
        for epoch in range(self.epochs):
            order = generator(seed, site, "round", round_number, "epoch", epoch).permutation(self.rows)
            batches = [
                Draws(rows, self.group[rows])
                for rows in np.array_split(order, -(-len(order) // self.batch_size))
            ]
            steps += [
                tuple(batches[start : start + self.accumulate])
                for start in range(0, len(batches), self.accumulate)
            ]
        return steps
