"""How many processes may work at once."""

import os


def usable_cores() -> int:
    """Return how many cores this process may use: a job of a cluster, or a container that is pinned, has a share of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
