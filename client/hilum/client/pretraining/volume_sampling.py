"""Which pieces of which volumes a step sees.

Shapes: N volumes, n rows of a micro-batch.
"""

import numpy as np

from hilum.client.data.volumes import Volumes
from hilum.client.pretraining.sampling import Draws, Rows, StepDraws
from hilum.common.seeding import generator


class VolumeEpochs:
    """Each epoch takes as many pieces of every volume, in a new order, in batches of nearly equal size.

    Volumes come in groups of at most a batch. The pieces of a group follow one another, so that they are read while the
    volumes are at hand, and go round its volumes, so that those of one batch are of as many volumes as there can be.

    Args:
        volumes: What rows are of.
        rows: (N,) what is trained on.
        group: The patient number of every row.
        per_volume: Pieces of each volume in an epoch.
        batch_size: At most so many pieces in a micro-batch.
        accumulate: Micro-batches in a step.
        epochs: How many there are in a round.
    """

    def __init__(
        self,
        volumes: Volumes,
        rows: Rows,
        group: Rows,
        *,
        per_volume: int,
        batch_size: int,
        accumulate: int,
        epochs: int,
    ) -> None:
        self.volumes, self.rows, self.group, self.per_volume = volumes, rows, group, per_volume
        self.batch_size, self.accumulate, self.epochs = batch_size, accumulate, epochs

    def plan(self, seed: int, site: str, round_number: int) -> list[StepDraws]:
        """See `Sampler`."""
        steps: list[StepDraws] = []
        for epoch in range(self.epochs):
            rng = generator(seed, site, "round", round_number, "epoch", epoch)
            order = rng.permutation(self.rows)
            near = np.array_split(order, -(-len(order) // self.batch_size))
            rows = np.concatenate([rng.permutation(some) for some in near for _ in range(self.per_volume)])
            origins = self.volumes.random_origins(rows, rng)
            batches = [
                Draws(rows[places], self.group[rows[places]], origins[places])
                for places in np.array_split(np.arange(len(rows)), -(-len(rows) // self.batch_size))
            ]
            steps += [
                tuple(batches[start : start + self.accumulate])
                for start in range(0, len(batches), self.accumulate)
            ]
        return steps
