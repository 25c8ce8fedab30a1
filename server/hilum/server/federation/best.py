"""Which round's encoder is the best: by its training loss, or by what the sites' validation patients say of it.

A score is larger where an encoder is better. What is not finite never wins, and a round without a score ends the run: a choice
among some of the rounds would not be one.
"""

import math
from dataclasses import dataclass, field

from hilum.common.errors import FederationError
from hilum.common.weights import FlatWeights


@dataclass(frozen=True)
class Best:
    """The best encoder so far: after which round, with which score, and its weights."""

    round: int
    score: float
    weights: FlatWeights = field(repr=False)


def by_loss(sites: dict[str, dict[str, float]]) -> float:
    """Return the score of a round from what its sites told: less the mean loss over their images.

    Raises:
        FederationError: If a loss is missing.
    """
    if not sites or any("loss" not in facts for facts in sites.values()):
        raise FederationError(
            'a round lacks the loss that training.select = "loss" compares; begin a new run'
        )
    images = sum(facts["examples"] for facts in sites.values())
    return -sum(facts["examples"] * facts["loss"] for facts in sites.values()) / images


def better_of(best: Best | None, number: int, score: float, weights: FlatWeights) -> Best | None:
    """Return the better one; of two with the same score the earlier."""
    if not math.isfinite(score) or (best is not None and score <= best.score):
        return best
    return Best(number, score, weights)
