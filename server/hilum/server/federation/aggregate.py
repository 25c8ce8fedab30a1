"""Aggregate: the admitted updates of a round become one change of the weights."""

from collections.abc import Iterable

from hilum.common.weights import Manifest
from hilum.server.federation.admission import Admitted
from hilum.server.federation.aggregators.base import Aggregated, Aggregator, AggregatorState


def aggregate(
    aggregator: Aggregator,
    manifest: Manifest,
    state: AggregatorState,
    admitted: Iterable[Admitted],
    *,
    quorum: int,
) -> Aggregated | None:
    """Return what a round's updates make, each let go before the next is asked for; None if they miss the quorum.

    Args:
        aggregator: The study's, made for this round.
        manifest: Names and shapes of what travels.
        state: What the aggregator remembers of the rounds before.
        admitted: The updates that count.
        quorum: How many are needed, at least 1.
    """
    aggregator.begin(manifest, state)
    count = 0
    for one in admitted:
        aggregator.add(one.update, one.weight, one.facts)
        count += 1
        del one
    return aggregator.finish() if count >= quorum else None
