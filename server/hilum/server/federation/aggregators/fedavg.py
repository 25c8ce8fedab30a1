"""Federated averaging (McMahan et al., arXiv 1602.05629): the weights move by the mean of the updates."""

from typing import ClassVar

from hilum.common.config.aggregators import FedAvgConfig
from hilum.common.weights import FlatWeights, Manifest
from hilum.server.federation.aggregators.accumulator import FixedPointMean
from hilum.server.federation.aggregators.base import Aggregated, AggregatorSpec, AggregatorState, UpdateFacts


class FedAvg:
    """The mean of the updates, weighted by examples; exact, so the same for every order of arrival.

    Args:
        config: Its section.
        most_weight: An upper bound on the sum of all weights of a round.
    """

    spec: ClassVar[AggregatorSpec] = AggregatorSpec(
        name="fedavg",
        paper="arXiv 1602.05629",
        state=(),
        weight_bytes=16,  # the sum and the mean
    )

    def __init__(self, config: FedAvgConfig, most_weight: int) -> None:
        del config
        self._most_weight = most_weight

    def begin(self, manifest: Manifest, state: AggregatorState) -> None:
        """Begin a round; nothing is remembered from the one before."""
        assert not state, "it gives none"
        self._mean = FixedPointMean(manifest.size, self._most_weight)

    def add(self, update: FlatWeights, weight: int, facts: UpdateFacts) -> None:
        """Add one update to the sum."""
        del facts
        self._mean.add(update, weight)

    def finish(self) -> Aggregated:
        """Return the mean."""
        return Aggregated(self._mean.mean(), {})
