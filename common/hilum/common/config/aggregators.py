"""The sections of aggregators: how updates become one change of the weights, each with its own parameters."""

from typing import Annotated, Literal

from pydantic import Field

from hilum.common.config.base import Section


class FedAvgConfig(Section):
    """Federated averaging (arXiv 1602.05629)."""

    name: Literal["fedavg"]


class FedAvgMConfig(Section):
    """Federated averaging with momentum at the server (arXiv 1909.06335).

    Attributes:
        momentum: What is kept of the rounds before. An update that is the same in every round moves the weights up to
            `learning_rate / (1 - momentum)` times as far as federated averaging does.
    """

    name: Literal["fedavgm"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1.0


AggregatorConfig = Annotated[FedAvgConfig | FedAvgMConfig, Field(discriminator="name")]
