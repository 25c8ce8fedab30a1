"""What one step does to the weights: the second seam of the loop.

Patient-level DP-SGD fills it with per-sample gradients, clipped and noised. `PlainStep` is the ordinary step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor

from hilum.common.methods import Loss, RandomNumbers, Views


@dataclass(frozen=True)
class MicroBatch:
    """What a method sees at once, its random numbers, and the patient number of each image, (B,)."""

    views: Views
    numbers: RandomNumbers
    patients: Tensor


@dataclass(frozen=True)
class StepOutcome:
    """What a step tells of itself: the mean loss, the means of its parts, and the method's health, by name."""

    loss: float
    parts: dict[str, float]
    health: dict[str, float]


class Step(Protocol):
    """Moves the weights once."""

    def __call__(self, batches: Iterable[MicroBatch], count: int) -> StepOutcome | None:
        """Take `count` micro-batches and move the weights; give None if none of them held an image."""


class PlainStep:
    """Mean gradient over the micro-batches, clipped to a norm, one optimizer step."""

    def __init__(
        self, fabric: Fabric, method: _FabricModule, optimizer: _FabricOptimizer, gradient_clip: float
    ) -> None:
        self.fabric, self.method, self.optimizer = fabric, method, optimizer
        self.gradient_clip = gradient_clip

    def __call__(self, batches: Iterable[MicroBatch], count: int) -> StepOutcome | None:
        """See `Step`."""
        if not count:
            return None
        self.optimizer.zero_grad()
        told: list[dict[str, Tensor]] = []
        for index, batch in enumerate(batches):
            with self.fabric.no_backward_sync(self.method, enabled=index + 1 < count):
                loss: Loss = self.method(batch.views, batch.numbers)
                mean = loss.per_image.mean()
                self.fabric.backward(mean / count)
            told.append({"": mean.detach(), **_named("part", loss.parts), **_named("health", loss.health)})
        self.fabric.clip_gradients(self.method, self.optimizer, max_norm=self.gradient_clip)
        self.optimizer.step()
        return _outcome(told)


def _named(kind: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{kind} {name}": value.detach() for name, value in values.items()}


def _outcome(told: list[dict[str, Tensor]]) -> StepOutcome:
    """Return the means over micro-batches, fetched from the device at once."""
    names = list(told[0])
    totals = torch.zeros(len(names), device=told[0][""].device)
    for one in told:
        totals = totals + torch.stack([one[name].float() for name in names]) / len(told)
    means = dict(zip(names, totals.tolist(), strict=True))

    def of(kind: str) -> dict[str, float]:
        return {
            name.removeprefix(f"{kind} "): value
            for name, value in means.items()
            if name.startswith(f"{kind} ")
        }

    return StepOutcome(means[""], of("part"), of("health"))
