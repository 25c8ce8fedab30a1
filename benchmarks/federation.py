"""Aggregation and the in-process engine, beside what a user would pick instead.

    python benchmarks/federation.py

Ratios are medians over interleaved repetitions in this one run; absolutes are for orientation.
"""

import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from hilum.common import records
from hilum.common.config import parse_study
from hilum.server.federation.accumulator import FixedPointMean
from hilum.server.federation.exchange import exchange
from hilum.simulations.grid import InProcessGrid

SITES, VALUES, REPEATS = 8, 5_600_000, 5  # a ViT-Tiny MAE
VIRTUAL_SITES = 128


def median_s(*work: Callable[[], object]) -> list[float]:
    """Median seconds of each function, taken in turn."""
    times: list[list[float]] = [[] for _ in work]
    for _ in range(REPEATS):
        for index, one in enumerate(work):
            started = time.perf_counter()
            one()
            times[index].append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]


def aggregation() -> None:
    """One weighted mean over all sites: ours streams, Flower's FedAvg holds all replies."""
    rng = np.random.default_rng(0)
    updates = [rng.normal(0, 1e-3, VALUES).astype(np.float32) for _ in range(SITES)]

    def ours() -> None:
        mean = FixedPointMean(VALUES, 10_000 * SITES)
        for update in updates:
            mean.add(update, 100)
        mean.mean()

    replies = [
        RecordDict({"a": ArrayRecord([update]), "m": MetricRecord({"num-examples": 100})})
        for update in updates
    ]

    def flower() -> None:
        aggregate_arrayrecords(replies, "num-examples")

    def copy() -> None:
        for update in updates:
            update.copy()

    mine, theirs, limit = median_s(ours, flower, copy)
    print(
        f"aggregate {SITES} updates of {VALUES * 4 / 1e6:.0f} MB: ours {mine * 1e3:.0f} ms, Flower FedAvg {theirs * 1e3:.0f} ms"
    )
    print(
        f"  ratio {theirs / mine:.2f}x (above 1: ours is faster); a bare copy takes {limit * 1e3:.0f} ms, {limit / mine:.0%} of ours"
    )
    print(f"  held at once: ours {8 / 4:.0f}x the model and one update, FedAvg {SITES + 1}x the model")


def engine() -> None:
    """Overhead of one exchange with many virtual sites that do nothing."""
    app = ClientApp()

    @app.query()
    def hello(message: Message, context: Context) -> Message:
        return Message(records.pack_hello(records.Hello(f"site-{context.node_id}", 1)), reply_to=message)

    study = parse_study(
        {
            "study": {"name": "bench"},
            "data": {"modality": "radiograph"},
            "encoder": {"name": "vit"},
            "method": {"name": "mae"},
        }
    )
    request = records.pack_request(study, "bench")

    def ours() -> None:
        with InProcessGrid(app, nodes=VIRTUAL_SITES, workers=2) as grid:
            requests = {node: lambda: request for node in grid.get_node_ids()}
            answers = list(exchange(grid, requests, records.HELLO, deadline_s=60, poll_s=0.005))
            assert len(answers) == VIRTUAL_SITES

    [mine] = median_s(ours)
    print(f"one exchange with {VIRTUAL_SITES} virtual sites, grid start included: {mine * 1e3:.0f} ms")


if __name__ == "__main__":
    aggregation()
    engine()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"peak memory of this benchmark: {peak_mb:.0f} MB")
