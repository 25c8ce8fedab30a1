"""Fair times: what is compared runs in turn, and the median counts."""

import statistics
import time
from collections.abc import Callable

REPEATS = 5


def median_s(
    *work: Callable[[], object],
    warm_up: bool = False,
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median seconds of each function, taken in turn; with `warm_up`, after a first round that is not counted.

    Args:
        work: What is compared.
        warm_up: Whether to begin with a round that is not counted.
        repeats: Rounds that are counted.
        clock: `time.process_time` counts this process alone, whatever else runs on the machine.
    """
    times: list[list[float]] = [[] for _ in work]
    for repeat in range(repeats + warm_up):
        for index, one in enumerate(work):
            started = clock()
            one()
            if repeat >= warm_up:
                times[index].append(clock() - started)
    return [statistics.median(taken) for taken in times]


def compare(
    what: str, unit: str, count: int, ours_s: float, theirs: tuple[str, float], limit: tuple[str, float]
) -> None:
    """Print one comparison: rates of `count` units, their ratio, and the share of the limit.

    Args:
        what: What is compared.
        unit: What is counted, in the plural.
        count: How many of them each took its time for.
        ours_s: Seconds.
        theirs: Name and seconds of the peer.
        limit: Name and seconds of what can't be gone below.
    """
    print(
        f"{what}: ours {count / ours_s:,.0f} {unit}/s, {theirs[0]} {count / theirs[1]:,.0f} {unit}/s: "
        f"ratio {theirs[1] / ours_s:.1f}x; {limit[1] / ours_s:.0%} of the limit ({limit[0]}, {count / limit[1]:,.0f}/s)"
    )
