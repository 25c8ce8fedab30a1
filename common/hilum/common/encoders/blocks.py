"""Blocks of a network that may be computed twice in order to keep less (gradient checkpointing, arXiv 1604.06174)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Blocks(nn.ModuleList):
    """Blocks one after the other; each takes (B, ...) and what is seen of it, or None.

    Attributes:
        recomputed: Whether a training step keeps the input of each block alone, and computes the rest again in the backward
            pass: the same gradients, bit for bit, for a fifth to a third more time.
    """

    recomputed = False

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return what the last block gives."""
        for output in self.outputs(x, seen):
            x = output
        return x

    def outputs(self, x: Tensor, seen: Tensor | None = None) -> Iterator[Tensor]:
        """Yield what each block gives, in order."""
        if not (self.recomputed and torch.is_grad_enabled()):
            for block in self:
                x = block(x, seen)
                yield x
            return
        from torch.utils.checkpoint import checkpoint  # brings torch's compiler with it, which takes seconds

        for block in self:
            x = checkpoint(block, x, seen, use_reentrant=False)
            yield x


def recompute(module: nn.Module, recomputed: bool) -> None:
    """Let all blocks inside a module be recomputed, or not."""
    for inner in module.modules():
        if isinstance(inner, Blocks):
            inner.recomputed = recomputed
