"""Aggregation and the in-process engine, beside what a user would pick instead.

    python benchmarks/federation.py

Ratios are medians over interleaved repetitions in this one run; absolutes are for orientation.
"""

import time
import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from timing import median_s

from hilum.common import records
from hilum.common.config import parse_study
from hilum.common.signing import sign_study
from hilum.common.training_health import HEALTH
from hilum.server.federation.aggregators.accumulator import FixedPointMean
from hilum.server.federation.exchange import exchange
from hilum.simulations.grid import InProcessGrid

SITES, VALUES = 8, 5_600_000  # a ViT-Tiny MAE
VIRTUAL_SITES = 128


def peak_bytes(work: Callable[[], object]) -> int:
    """Most memory that Python and NumPy held at once during `work`."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def aggregation() -> None:
    """Compare one weighted mean over all sites: ours streams, Flower's FedAvg holds all replies."""
    rng = np.random.default_rng(0)
    updates = [rng.normal(0, 1e-3, VALUES).astype(np.float32) for _ in range(SITES)]

    def reply_with(update: npt.NDArray[np.float32]) -> RecordDict:
        return RecordDict({"a": ArrayRecord([update]), "m": MetricRecord({"num-examples": 100})})

    def ours() -> None:
        mean = FixedPointMean(VALUES, 10_000 * SITES)
        for update in updates:
            mean.add(update, 100)
        mean.mean()

    replies = [reply_with(update) for update in updates]

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
    size = updates[0].nbytes
    streamed = peak_bytes(lambda: _stream(_reply(update) for update in updates))
    held = peak_bytes(
        lambda: aggregate_arrayrecords([reply_with(update) for update in updates], "num-examples")
    )
    print(
        f"  most held at once, replies included: ours {streamed / size:.1f}x the model, FedAvg {held / size:.1f}x"
    )


def _stream(replies: Iterable[RecordDict]) -> None:
    """Take each reply as it comes and let it go, as the round loop does."""
    mean = FixedPointMean(VALUES, 10_000 * SITES)
    for reply in replies:
        mean.add(records.unpack_training_reply(reply).update, 100)
    mean.mean()


def _reply(update: npt.NDArray[np.float32]) -> RecordDict:
    return records.pack_training_reply(
        records.TrainReply("site", 1, "sha256", 100, 0.0, 0.0, dict.fromkeys(HEALTH, 1.0), update)
    )


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
    names = [f"site-{index}" for index in range(study.federation.sites)]
    key = Ed25519PrivateKey.generate()
    signed = sign_study(study, run="bench", sites=names, days=1, now=time.time(), key=key)
    request = records.pack_request(signed)

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
