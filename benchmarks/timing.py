"""Fair times: what is compared runs in turn, and the median counts."""

import statistics
import time
from collections.abc import Callable

REPEATS = 5


def median_s(*work: Callable[[], object], warm_up: bool = False) -> list[float]:
    """Median seconds of each function, taken in turn; with `warm_up`, after a first round that is not counted."""
    times: list[list[float]] = [[] for _ in work]
    for repeat in range(REPEATS + warm_up):
        for index, one in enumerate(work):
            started = time.perf_counter()
            one()
            if repeat >= warm_up:
                times[index].append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]
