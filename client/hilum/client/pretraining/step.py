"""What one step does to the weights: the second seam of the loop.

Patient-level DP-SGD fills it with per-sample gradients, clipped and noised. `PlainStep` is the ordinary step.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor

from hilum.common.methods import Loss, RandomNumbers, Views


@dataclass(frozen=True)
class MicroBatch:
    """What a method sees at once, whose images they are included, and its random numbers.

    Attributes:
        count: How many of the images are seen here; of several processes, each sees its share.
    """

    views: Views
    numbers: RandomNumbers
    count: int


@dataclass(frozen=True)
class StepOutcome:
    """What a step tells of itself.

    Attributes:
        loss: Mean over its images.
        parts: Means of the loss's parts, by name.
        health: Means of what the method tells of its health, by name.
        gradient_norm: Before it was clipped.
    """

    loss: float
    parts: dict[str, float]
    health: dict[str, float]
    gradient_norm: float = 0.0

    @property
    def was_skipped(self) -> bool:
        """Whether the weights stayed as they were, since the gradient was not finite."""
        return not math.isfinite(self.gradient_norm)


@dataclass(frozen=True)
class PendingOutcome:
    """What a step will tell of itself, once the device has done it: nobody waits for it within the step.

    Attributes:
        names: What the values are.
        values: Their copy on the CPU.
        copied: Of the GPU, when they are there; None where they are there already.
    """

    names: tuple[str, ...]
    values: Tensor
    copied: "torch.cuda.Event | None"

    def wait(self) -> StepOutcome:
        """Wait until the step is done."""
        if self.copied is not None:
            self.copied.synchronize()
        *values, gradient_norm = self.values.tolist()
        means = dict(zip(self.names, values, strict=True))

        def of(kind: str) -> dict[str, float]:
            return {
                name.removeprefix(f"{kind} "): value
                for name, value in means.items()
                if name.startswith(f"{kind} ")
            }

        return StepOutcome(means[""], of("part"), of("health"), gradient_norm)


class Step(Protocol):
    """Moves the weights once."""

    def __call__(self, batches: Iterable[MicroBatch], sizes: Sequence[int]) -> PendingOutcome | None:
        """Take micro-batches of known sizes and move the weights; give None if none of them holds an image."""


class PlainStep:
    """Mean gradient over the images of all micro-batches, clipped to a norm, one optimizer step.

    A gradient that is not finite moves nothing, and the moments stay as they were: a fused optimizer looks at `found_inf`
    on the device, so nobody waits for it.
    """

    def __init__(
        self, fabric: Fabric, method: _FabricModule, optimizer: _FabricOptimizer, gradient_clip: float
    ) -> None:
        self.fabric, self.method, self.optimizer = fabric, method, optimizer
        self.gradient_clip = gradient_clip

    def __call__(self, batches: Iterable[MicroBatch], sizes: Sequence[int]) -> PendingOutcome | None:
        """See `Step`."""
        if not sizes:
            return None
        images = sum(sizes)
        self.optimizer.zero_grad()
        told: list[dict[str, Tensor]] = []
        for index, batch in enumerate(batches, 1):
            with self.fabric.no_backward_sync(self.method, enabled=index < len(sizes)):
                loss: Loss = self.method(batch.views, batch.numbers)
                mean, share = loss.per_image.mean(), batch.count / images
                # Gradients of several processes are averaged, and each has its share of the images.
                self.fabric.backward(mean * (share * self.fabric.world_size))
            named = {"": mean.detach(), **_named("part", loss.parts), **_named("health", loss.health)}
            told.append({name: value.float() * share for name, value in named.items()})
        norm = self.fabric.clip_gradients(
            self.method, self.optimizer, max_norm=self.gradient_clip, error_if_nonfinite=False
        )
        assert norm is not None, "gradients are clipped by their norm"
        self.optimizer.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        return _pending(told, norm, self.fabric)


def _named(kind: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{kind} {name}": value.detach() for name, value in values.items()}


def _pending(told: list[dict[str, Tensor]], norm: Tensor, fabric: Fabric) -> PendingOutcome:
    """Sum over micro-batches and processes, and begin to fetch it from the device."""
    names = tuple(told[0])
    totals = torch.stack([torch.stack([one[name] for name in names]) for one in told]).sum(0)
    if fabric.world_size > 1:
        torch.distributed.all_reduce(totals)  # Fabric's would have the host wait for all processes first
    values = torch.cat([totals, norm.float().view(1)])
    if values.device.type != "cuda":
        return PendingOutcome(names, values, None)
    fetched = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
    copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    copied.record()
    return PendingOutcome(names, fetched, copied)
