"""The learning rate over the whole study: linear warm-up, then a cosine to zero that runs on over rounds."""

import math


def learning_rate_factor(done: float, warmup: float) -> float:
    """The factor on the peak rate (arXiv 1608.03983, without restarts).

    Args:
        done: Share of the whole study that is done, in [0, 1], whatever the site's size.
        warmup: Share of the study over which the rate climbs.
    """
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
