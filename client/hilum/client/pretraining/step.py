"""What one step does to the weights: the second seam of the loop.

Patient-level DP-SGD fills it with per-sample gradients, clipped and noised. `PlainStep` is the ordinary step.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor

MicroBatch = tuple[Tensor, Tensor]  # views (B, V, C, *S) and the method's random numbers (B, any)


class Step(Protocol):
    """Moves the weights once."""

    def __call__(self, batches: Iterable[MicroBatch], count: int) -> float:
        """Take `count` micro-batches, move the weights, give the mean loss."""


class PlainStep:
    """Mean gradient over the micro-batches, clipped to a norm, one optimizer step."""

    def __init__(
        self, fabric: Fabric, method: _FabricModule, optimizer: _FabricOptimizer, gradient_clip: float
    ) -> None:
        self.fabric, self.method, self.optimizer = fabric, method, optimizer
        self.gradient_clip = gradient_clip

    def __call__(self, batches: Iterable[MicroBatch], count: int) -> float:
        """See `Step`."""
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.fabric.device)
        for index, (views, noise) in enumerate(batches):
            with self.fabric.no_backward_sync(self.method, enabled=index + 1 < count):
                loss = self.method(views, noise).mean()
                self.fabric.backward(loss / count)
            total += loss.detach() / count
        self.fabric.clip_gradients(self.method, self.optimizer, max_norm=self.gradient_clip)
        self.optimizer.step()
        return float(total)
