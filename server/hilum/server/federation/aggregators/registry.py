"""The one list of aggregators."""

from hilum.common.config.choices import AggregatorConfig, FedAvgConfig, FedAvgMConfig
from hilum.server.federation.aggregators.base import Aggregator, AggregatorSpec
from hilum.server.federation.aggregators.fedavg import FedAvg
from hilum.server.federation.aggregators.fedavgm import FedAvgM

AGGREGATORS: dict[str, AggregatorSpec] = {spec.name: spec for spec in (FedAvg.spec, FedAvgM.spec)}


def build_aggregator(config: AggregatorConfig, most_weight: int) -> Aggregator:
    """Return the aggregator that a study chooses, for one round.

    Args:
        config: The study's `[federation.aggregator]`.
        most_weight: An upper bound on the sum of all weights of the round.
    """
    match config:
        case FedAvgConfig():
            return FedAvg(most_weight)
        case FedAvgMConfig(momentum=momentum, learning_rate=learning_rate):
            return FedAvgM(most_weight, momentum=momentum, learning_rate=learning_rate)
