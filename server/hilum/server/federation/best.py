"""Which round's encoder is the best: by its training loss, or by what the sites' validation patients say of it.

Every site scores a round, more being better, and two rounds are compared over the sites that scored both: who is missing in one
of them must not decide. What is not finite never wins, and a round without a score ends the run: a choice among some of the
rounds would not be one.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from hilum.common.errors import FederationError
from hilum.common.weights import FlatWeights

Scores = Mapping[str, float]
"""By site."""


@dataclass(frozen=True)
class Best:
    """The best encoder so far: after which round, how it scored at each site, and its weights."""

    round: int
    scores: Scores
    weights: FlatWeights = field(repr=False)

    @property
    def score(self) -> float:
        """The mean over sites."""
        return fmean(self.scores.values())


def loss_scores(sites: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the scores of a round from what its sites told: less the training loss of each.

    Raises:
        FederationError: If a loss is missing.
    """
    if not sites or any("loss" not in facts for facts in sites.values()):
        raise FederationError(
            'a round lacks the loss that training.select = "loss" compares; begin a new run'
        )
    return {name: -facts["loss"] for name, facts in sites.items()}


def is_better(scores: Scores, than: Scores | None) -> bool:
    """Tell whether a round is better than the best before; of two that are as good, the earlier stays."""
    if not scores or not all(map(math.isfinite, scores.values())):
        return False
    if than is None:
        return True
    shared = scores.keys() & than.keys()
    return bool(shared) and fmean(scores[name] for name in shared) > fmean(than[name] for name in shared)


def best_of(rounds: Iterable[Scores]) -> int | None:
    """Return the place, from 0, of the round that is the best once all are known; None if no round has scores."""
    best: tuple[int, Scores] | None = None
    for place, scores in enumerate(rounds):
        if is_better(scores, best[1] if best else None):
            best = place, scores
    return best[0] if best else None
