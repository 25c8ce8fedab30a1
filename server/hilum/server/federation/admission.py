"""What an update must satisfy before anything else reads it."""

import math

import numpy as np

from hilum.common.errors import UpdateRefused
from hilum.common.records import TrainReply
from hilum.common.weights import MAX_ABS_CHANGE

_NORM_SLACK = (
    1e-6  # the site computed the norm in the same arithmetic; this is for another processor's last bits
)


def admit(
    reply: TrainReply,
    *,
    site: str,
    round_number: int,
    base_sha256: str,
    size: int,
    max_norm: float | None,
    example_cap: int,
) -> int:
    """Check one update.

    Returns:
        The weight of the update: what the site says it trained on, at most `example_cap`.

    Raises:
        UpdateRefused: With a reason code: `wrong_site`, `stale`, `wrong_size`, `not_finite`, `too_large`, `no_examples`.
    """
    if reply.site != site:
        raise UpdateRefused("wrong_site", f"expected {site}, the update says it is another site's")
    if reply.round_number != round_number or reply.base_sha256 != base_sha256:
        raise UpdateRefused("stale", f"expected round {round_number} from the current weights")
    if reply.update.shape != (size,):
        raise UpdateRefused("wrong_size", f"expected {size} values, found {reply.update.size}")
    if (
        not np.isfinite(reply.update).all()
        or not math.isfinite(reply.loss)
        or not math.isfinite(reply.seconds)
    ):
        raise UpdateRefused("not_finite", "the update or its loss has a NaN or an infinity")
    largest = float(np.abs(reply.update).max(initial=0))
    if largest > MAX_ABS_CHANGE:
        raise UpdateRefused(
            "too_large", f"one weight moves by {largest:.3g}, at most {MAX_ABS_CHANGE} is accepted"
        )
    norm = float(np.linalg.norm(reply.update.astype(np.float64)))
    if max_norm is not None and norm > max_norm * (1 + _NORM_SLACK):
        raise UpdateRefused("too_large", f"the norm is {norm:.6g}, privacy.max_update_norm is {max_norm}")
    if reply.examples < 1:
        raise UpdateRefused("no_examples", f"the site says that it trained on {reply.examples} images")
    return min(reply.examples, example_cap)
