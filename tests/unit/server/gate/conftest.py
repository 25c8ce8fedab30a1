"""A gate on loopback with a grid behind it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gate_site import SITES, Trial
from hilum.server.gate import GateBounds, GateGrid


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    trials: list[Trial] = []

    def make(bounds: GateBounds | None = None) -> Trial:
        trials.append(Trial(tmp_path / str(len(trials)), bounds).start())
        return trials[-1]

    yield make
    for trial in trials:
        trial.stop()


@pytest.fixture
def trial(start: Callable[..., Trial]) -> Trial:
    return start()


@pytest.fixture
def grid(trial: Trial) -> Iterator[GateGrid]:
    with trial.gate.grid("run-1", SITES) as grid:
        yield grid
