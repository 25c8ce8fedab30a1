"""What an aggregator is: it takes the admitted updates of one round, one at a time, and gives one change of the weights.

It is a pure computation: it sees no message and no disk, and whatever it remembers from round to round goes through
`begin` and `finish` into the checkpoint. One is made for each round, so a run that was killed and goes on computes the
same bits as one that was not.

Adding one takes a file here with its line in `registry`, and its section in `hilum.common.config.aggregators`. The exact sum
that all who need no single update share is in `accumulator`.

Shapes: P the values that travel, in the manifest's order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from hilum.common.weights import FlatWeights, Manifest

AggregatorState = Mapping[str, npt.NDArray[np.float32]]
"""By name, what an aggregator remembers; empty before the first round, and for one that remembers nothing."""


@dataclass(frozen=True)
class AggregatorSpec:
    """What is known of an aggregator before it is used.

    Attributes:
        name: As a study has it.
        paper: Where it comes from.
        state: Names of what it remembers from round to round.
        weight_bytes: What it holds at most for each value that travels, its state before and after included.
        update_bytes: What it holds besides for each value of each site's update, 0 for one that adds them up: such a one
            can work where nobody but the sites may see a single update.
    """

    name: str
    paper: str
    state: tuple[str, ...]
    weight_bytes: int
    update_bytes: int = 0

    def memory_bytes(self, size: int, sites: int) -> int:
        """Return what it holds at most for P = `size` values and so many sites."""
        return size * (self.weight_bytes + self.update_bytes * sites)


@dataclass(frozen=True)
class UpdateFacts:
    """What is known of an admitted update besides its values and its weight.

    Attributes:
        site: Who sent it.
        examples: The band of images that it was trained on; the weight is at most that.
        loss: The site's mean training loss.
        norm: Euclidean.
    """

    site: str
    examples: int
    loss: float
    norm: float


@dataclass(frozen=True)
class Aggregated:
    """What a round gives.

    Attributes:
        change: (P,) to be added to the weights that were sent.
        state: For the next round's `begin`.
    """

    change: npt.NDArray[np.float64] = field(repr=False)
    state: AggregatorState = field(repr=False)


class Aggregator(Protocol):
    """One round's aggregation: `begin`, `add` for each update, `finish`."""

    spec: ClassVar[AggregatorSpec]

    def begin(self, manifest: Manifest, state: AggregatorState) -> None:
        """Begin a round.

        Args:
            manifest: Names and shapes of what travels, for one that weighs layer by layer.
            state: What the round before gave; empty before the first one.
        """

    def add(self, update: FlatWeights, weight: int, facts: UpdateFacts) -> None:
        """Take one update. The result must not depend on the order in which they come.

        Args:
            update: (P,), finite, within `MAX_ABS_CHANGE`; it is gone after the call, so one that needs it keeps a copy.
            weight: At least 1.
            facts: What else is known of it.
        """

    def finish(self) -> Aggregated:
        """Return the change, and what to remember.

        Raises:
            ValueError: If no update was added.
        """
