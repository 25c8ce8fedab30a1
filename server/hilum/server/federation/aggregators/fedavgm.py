"""Federated averaging with momentum at the server (Hsu et al., arXiv 1909.06335).

With m the weighted mean of a round's updates, the server remembers v and moves the weights w:

    v <- momentum v + m        w <- w + learning_rate v

What the sites disagree on changes its sign from round to round and cancels in v; what they agree on adds up. It is linear
in the mean. So it keeps the size that the sites' own schedule gives their updates, which get smaller towards the end,
where a server that divides by a running size of the updates (FedAdam, arXiv 2003.00295) would blow them up again, on top
of the AdamW that each site has already. And it needs no single update.
"""

from typing import ClassVar

import numpy as np

from hilum.common.config.aggregators import FedAvgMConfig
from hilum.common.weights import FlatWeights, Manifest
from hilum.server.federation.aggregators.accumulator import FixedPointMean
from hilum.server.federation.aggregators.base import Aggregated, AggregatorSpec, AggregatorState, UpdateFacts


class FedAvgM:
    """The mean of the updates, exact, and a momentum over rounds.

    Args:
        config: Its section.
        most_weight: An upper bound on the sum of all weights of a round.
    """

    spec: ClassVar[AggregatorSpec] = AggregatorSpec(
        name="fedavgm",
        paper="arXiv 1909.06335",
        state=("momentum",),
        weight_bytes=24,  # the sum, the mean that becomes v, and v before and after in float32
    )

    def __init__(self, config: FedAvgMConfig, most_weight: int) -> None:
        self._config, self._most_weight = config, most_weight

    def begin(self, manifest: Manifest, state: AggregatorState) -> None:
        """Begin a round with v of the one before, or zero."""
        self._before = state.get("momentum", np.zeros(1, np.float32))
        self._mean = FixedPointMean(manifest.size, self._most_weight)

    def add(self, update: FlatWeights, weight: int, facts: UpdateFacts) -> None:
        """Add one update to the sum."""
        del facts
        self._mean.add(update, weight)

    def finish(self) -> Aggregated:
        """Return the step along v, and v in float32."""
        v = self._mean.mean()
        v += self._config.momentum * self._before.astype(np.float64)
        kept = v.astype(np.float32)
        v *= self._config.learning_rate
        return Aggregated(v, {"momentum": kept})
