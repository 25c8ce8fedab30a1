"""The learning rate over the whole study: linear warm-up, then a cosine to zero that runs on over rounds."""

import math


def step_middle(index: int, steps: int) -> float:
    """Return the share that is done in the middle of a step.

    The rate is taken there: at a step's begin the first would have rate 0, at its end the last, and a schedule of one
    step would train nothing.

    Args:
        index: Of the step, from 0.
        steps: How many there are.
    """
    return (index + 0.5) / steps


REWARM_STEPS = 10
"""So long a new optimizer's moments take to settle; its first step would be five times as long as a later one."""


def rewarmed(index: int) -> float:
    """Return the factor on the rate in a round's first steps, since each round begins with a new optimizer.

    Args:
        index: Of the step in its round, from 0.
    """
    return min(1.0, (index + 1) / REWARM_STEPS)


def learning_rate_factor(done: float, warmup: float) -> float:
    """Return the factor on the peak rate (arXiv 1608.03983, without restarts).

    Args:
        done: Share of the whole schedule that is done, in [0, 1], whatever the site's size; see `step_middle`.
        warmup: Share over which the rate climbs.
    """
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
