"""What an update must satisfy before anything else reads it.

Its norm is held against the running median of the norms before it, where the study names no absolute bound too. A median
of norms moves only where a majority moves it; of two sites alone, the smaller norm is the measure. A site's weight is its
own word, up to the cap.

A secure sum would hide single updates from here: what is asked of one must then hold of the sum (`aggregators.accumulator`, one of
integers already) or be kept at the site; `round_updates` beside this, which holds each update of a first round, and the exchange in `rounds` follow. What a
site sends is filled in by `hilum.client.app`, packed in `hilum.common.records` and allowed by `hilum.client.disclosure.leaves`; a
study asks for it in `PrivacySection`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hilum.common.errors import UpdateRefused
from hilum.common.records import TrainReply
from hilum.common.training_health import bounded
from hilum.common.weights import MAX_ABS_CHANGE, FlatWeights
from hilum.server.federation.aggregators.base import UpdateFacts
from hilum.server.federation.store import RoundRecord

WINDOW_ROUNDS = 5
"""The running median is over the accepted norms of so many rounds."""

_MAX_LOSS = 1e9  # losses are of order one; what is beyond can't be drawn
_TILE = 1 << 16  # values whose squares are summed at a time: no copy of an update in float64
_NORM_SLACK = (
    1e-6  # the site computed the norm in the same arithmetic; this is for another processor's last bits
)


@dataclass(frozen=True)
class Terms:
    """What the updates of one round are held against.

    Attributes:
        base_sha256: Of the weights that were sent.
        size: P.
        max_norm: The study's absolute bound.
        norm_bound: From the rounds before; None in the first one.
        norm_ratio: Of a norm to the median of norms, at most.
        example_cap: The most that one site weighs.
    """

    round_number: int
    base_sha256: str
    size: int
    max_norm: float | None
    norm_bound: float | None
    norm_ratio: float
    example_cap: int


@dataclass(frozen=True)
class Admitted:
    """An update that counts: its values, what it weighs, and what else is known of it."""

    update: FlatWeights = field(repr=False)
    weight: int
    facts: UpdateFacts


def admit(reply: TrainReply, terms: Terms, *, site: str, examples: int) -> Admitted:
    """Check one update.

    Args:
        reply: The update.
        terms: The round's.
        site: Who sent it.
        examples: What the site's greeting said.

    Raises:
        UpdateRefused: With a reason code: `wrong_site`, `stale`, `wrong_size`, `not_finite`, `too_large`,
            `no_examples`, `wrong_examples`, `out_of_range`.
    """
    if reply.site != site:
        raise UpdateRefused("wrong_site", f"expected {site}, the update says it is another site's")
    if reply.round_number != terms.round_number or reply.base_sha256 != terms.base_sha256:
        raise UpdateRefused("stale", f"expected round {terms.round_number} from the current weights")
    if reply.update.shape != (terms.size,):
        raise UpdateRefused("wrong_size", f"expected {terms.size} values, found {reply.update.size}")
    _check_numbers(reply)
    if reply.examples < 1:
        raise UpdateRefused("no_examples", f"the site says that it trained on {reply.examples} images")
    if reply.examples != examples:
        raise UpdateRefused(
            "wrong_examples", f"the site greeted with {examples} images, its update says {reply.examples}"
        )
    norm = _norm_of(reply.update)
    if terms.max_norm is not None and norm > terms.max_norm * (1 + _NORM_SLACK):
        raise UpdateRefused(
            "too_large", f"the norm is {norm:.6g}, privacy.max_update_norm is {terms.max_norm}"
        )
    check_norm(norm, terms.norm_bound)
    facts = UpdateFacts(site, reply.examples, reply.loss, norm)
    return Admitted(reply.update, min(reply.examples, terms.example_cap), facts)


def _check_numbers(reply: TrainReply) -> None:
    """Refuse a loss, seconds or health that are not finite or beyond every range.

    Raises:
        UpdateRefused: `not_finite` or `out_of_range`.
    """
    if not math.isfinite(reply.loss) or not math.isfinite(reply.seconds):
        raise UpdateRefused("not_finite", "the loss or the seconds are a NaN or an infinity")
    if abs(reply.loss) > _MAX_LOSS or not 0 <= reply.seconds <= _MAX_LOSS:
        raise UpdateRefused("out_of_range", "the loss or the seconds are out of every range")
    for name, value in reply.health.items():
        if not bounded(name, value):
            raise UpdateRefused(
                "out_of_range" if math.isfinite(value) else "not_finite", f"{name} is {value:.6g}"
            )


def norm_bound(norms: Iterable[float], ratio: float) -> float | None:
    """Return `ratio` times the lower median of norms; None where there is none above zero."""
    ordered = sorted(norm for norm in norms if norm > 0)
    return ratio * ordered[(len(ordered) - 1) // 2] if ordered else None


def running_bound(rounds: Sequence[RoundRecord], ratio: float) -> float | None:
    """Return the bound from the last rounds' accepted norms; None before the first round."""
    last = rounds[-WINDOW_ROUNDS:]
    return norm_bound((facts["norm"] for record in last for facts in record.sites.values()), ratio)


def check_norm(norm: float, bound: float | None) -> None:
    """Hold a norm against a bound from medians.

    Raises:
        UpdateRefused: `too_large`.
    """
    if bound is not None and norm > bound:
        raise UpdateRefused(
            "too_large",
            f"the norm is {norm:.6g}, federation.norm_ratio times the median of norms is {bound:.6g}",
        )


def _norm_of(update: FlatWeights) -> float:
    """Return the Euclidean norm of an update whose values are all finite and within the grid's bounds.

    Raises:
        UpdateRefused: `not_finite` or `too_large`, if they are not.
    """
    squares = []
    for start in range(0, update.size, _TILE):
        tile = update[start : start + _TILE].astype(np.float64)
        with np.errstate(all="ignore"):
            square = float(tile @ tile)
        if not math.isfinite(square):  # float32 squared always fits into float64
            raise UpdateRefused("not_finite", "the update has a NaN or an infinity")
        largest = float(np.abs(tile).max())
        if largest > MAX_ABS_CHANGE:
            raise UpdateRefused(
                "too_large", f"one weight moves by {largest:.3g}, at most {MAX_ABS_CHANGE} is accepted"
            )
        squares.append(square)
    return math.sqrt(math.fsum(squares))
