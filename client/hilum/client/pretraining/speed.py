"""How fast this machine trains, and with how much memory: the real loop, on noise, for some seconds."""

import resource
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.pretraining.fitting import noise, release
from hilum.client.pretraining.loop import RoundPlace, train_round
from hilum.common.config import StudyConfig, parse_study
from hilum.common.methods import build_method

_WARM_UP = 4  # steps that are not counted: kernels are chosen and memory is taken in two, and a GPU tells of steps two back
_MIN_STEPS, _MAX_STEPS = 3, 200
_KILOBYTE = 1024


@dataclass(frozen=True)
class Speed:
    """What a few steps took.

    Attributes:
        step_seconds: Median.
        images_per_second: Of the loop, data and all.
        memory_bytes: Peak: of the GPU, or of this process.
    """

    step_seconds: float
    images_per_second: float
    memory_bytes: int


class _Enough(Exception):  # noqa: N818 - not an error: the measurement is over
    """Ends the loop from inside its progress."""


class _Clock:
    """Notes when each step is done."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.at = seconds, [time.monotonic()]

    def advance(self, done: int, note: str = "") -> None:
        """See `Progress`."""
        del note
        self.at.append(time.monotonic())
        counted = done - _WARM_UP
        if counted >= _MIN_STEPS and self.at[-1] - self.at[_WARM_UP] > self.seconds:
            raise _Enough


def measure_speed(study: StudyConfig, fabric: Fabric, *, seconds: float = 5.0) -> Speed:
    """Train on noise for some seconds, after a warm-up.

    Args:
        study: The study; the batch is the one that it names.
        fabric: The device.
        seconds: How long to measure, at least; three steps are always taken.
    """
    training = study.training
    images = training.batch_size * training.accumulate
    table = study.model_dump()
    table["training"] |= {"local_epochs": _MAX_STEPS, "checkpoint_minutes": 1440.0, "compile": False}
    rows = np.arange(images)
    data = SiteData(
        "noise", noise(study, images), (None,) * images, Split(rows, rows[:0], rows[:0], rows), ""
    )
    if fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(fabric.device)
    clock, longer = _Clock(seconds), parse_study(table)
    try:
        train_round(build_method(longer), data, longer, RoundPlace("noise", 1, ""), fabric, clock)
    except _Enough:
        release(fabric)
    steps = np.diff(clock.at)[_WARM_UP:]
    step = statistics.median(steps.tolist())
    return Speed(step, images / step, _peak_bytes(fabric))


def _peak_bytes(fabric: Fabric) -> int:
    if fabric.device.type == "cuda":
        return torch.cuda.max_memory_reserved(fabric.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KILOBYTE
