"""A study's rounds over a model of two small tensors."""

import threading

import numpy as np
import pytest

from federated_sites import NAMES, PACE, make_client
from hilum.common.progress import NullProgress
from hilum.common.weights import Manifest
from hilum.server.federation.rounds import Federation
from hilum.server.federation.run_spec import RunSpec
from hilum.server.federation.store import RunStore
from hilum.simulations.grid import InProcessGrid


@pytest.fixture
def small_model(monkeypatch):
    """What travels is two tensors of 1,000 values, so that rounds take milliseconds."""

    def use(size):
        manifest = Manifest((("a", (size // 2,)), ("b", (2, size // 4))))
        base = np.random.default_rng(1).normal(size=size).astype(np.float32)
        monkeypatch.setattr("hilum.server.federation.rounds.build_method", lambda study: None)
        monkeypatch.setattr("hilum.server.federation.rounds.get_frozen", lambda method: {})
        monkeypatch.setattr("hilum.server.federation.rounds.federated_manifest", lambda method: manifest)
        monkeypatch.setattr("hilum.server.federation.rounds.get_federated", lambda method: base.copy())
        return base

    use.base = use(1000)
    return use


@pytest.fixture
def federate(small_model, make_order, tmp_path):
    """Run a study's rounds; the grid is the in-process one, or what `grid` gives."""

    def run(
        study, train=None, *, folder="run", resume=False, hello=None, names=NAMES, grid=None, sites=NAMES,
        stop=None, pace=PACE, score=None,
    ):  # fmt: skip
        signed, order = make_order(study, sites=sites)
        seen = []
        made = grid or InProcessGrid(
            make_client(train, names, hello, score), nodes=len(names), workers=len(names)
        )
        with RunStore.open(tmp_path / folder, order, resume=resume) as store, made:
            work = RunSpec(signed, order, store, pace, stop=stop or threading.Event())
            federation = Federation(made, work)
            run.federation = federation
            federation.gather()
            federation.run_rounds(NullProgress(), seen.append)
        return federation.done, seen

    return run
