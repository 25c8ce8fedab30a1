"""The one list of aggregators."""

from typing import Any

from hilum.common.config.aggregators import AggregatorConfig
from hilum.server.federation.aggregators.base import Aggregator, AggregatorSpec
from hilum.server.federation.aggregators.fedavg import FedAvg
from hilum.server.federation.aggregators.fedavgm import FedAvgM

_AGGREGATORS: dict[str, Any] = {one.spec.name: one for one in (FedAvg, FedAvgM)}
"""Each takes its section, and an upper bound on the sum of all weights of a round."""

AGGREGATORS: dict[str, AggregatorSpec] = {name: one.spec for name, one in _AGGREGATORS.items()}


def build_aggregator(config: AggregatorConfig, most_weight: int) -> Aggregator:
    """Return the aggregator that a study chooses, for one round.

    Args:
        config: The study's `[federation.aggregator]`.
        most_weight: An upper bound on the sum of all weights of the round.
    """
    aggregator: Aggregator = _AGGREGATORS[config.name](config, most_weight)
    return aggregator
