"""What a run is: the signed study, where it is kept, and how to wait for its sites."""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from hilum.common.config import StudyConfig
from hilum.common.progress import NullProgress, Progress
from hilum.common.signing import SignedStudy, StudyOrder
from hilum.common.start import Start
from hilum.common.weights import FlatWeights
from hilum.server.federation.store import RunStore

Stage = Callable[[str, int], AbstractContextManager[Progress]]


def _no_stage(_title: str, _total: int) -> AbstractContextManager[Progress]:
    return nullcontext(NullProgress())


class StopSignal(Protocol):
    """What `threading.Event` and its like have."""

    def is_set(self) -> bool:
        """Return whether the run is to end."""


@dataclass(frozen=True)
class Polling:
    """How often to look for answers, and how long to wait for the study's sites to greet."""

    poll_s: float
    gather_s: float


@dataclass(frozen=True)
class RunSpec:
    """What a run is to do.

    Attributes:
        signed: The study as every site gets it.
        order: What it says, its signature checked.
        store: The run directory, held by this process.
        pace: How to wait.
        start: What the first round starts from, where a file is behind it; None where the study's seed decides it.
        more_arms: Gives weights of arms that only a simulation has; called once, after the rounds.
        stage: Opens a progress display for a stage of so many units.
        stop: Ends the rounds, within a second, when it is set.
    """

    signed: SignedStudy
    order: StudyOrder
    store: RunStore
    pace: Polling
    start: Start | None = None
    more_arms: Callable[[], Mapping[str, FlatWeights]] = field(default=dict)
    stage: Stage = _no_stage
    stop: StopSignal = field(default_factory=threading.Event)

    @property
    def study(self) -> StudyConfig:
        """The study."""
        return self.order.study
