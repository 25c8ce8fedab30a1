"""Blocks of a network: in a training step they may be compiled, and computed twice in order to keep less (arXiv 1604.06174)."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_VARIANTS = 64  # of the code of one kind of block: by shape, stride and precision, and a process may serve many studies


class Blocks(nn.ModuleList):
    """Blocks one after the other; each takes (B, ...) and what is seen of it, or None.

    Attributes:
        recomputed: Whether a training step keeps the input of each block alone, and computes the rest again in the backward
            pass: the same gradients, bit for bit, for a fifth to a third more time.
        compiled: What a training step calls in place of each block; empty, where they are called as they are.
    """

    recomputed = False
    compiled: tuple[Callable[..., Any], ...] = ()

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return what the last block gives."""
        for output in self.outputs(x, seen):
            x = output
        return x

    def outputs(self, x: Tensor, seen: Tensor | None = None) -> Iterator[Tensor]:
        """Yield what each block gives, in order."""
        is_step = torch.is_grad_enabled()
        for block in self.compiled if is_step and self.compiled else self:
            if is_step and self.recomputed:
                from torch.utils.checkpoint import (
                    checkpoint,
                )  # brings torch's compiler with it, which takes seconds

                x = checkpoint(block, x, seen, use_reentrant=False)
            else:
                x = block(x, seen)
            yield x


def recompute(module: nn.Module, recomputed: bool) -> None:
    """Let all blocks inside a module be recomputed, or not."""
    for blocks in _inside(module):
        blocks.recomputed = recomputed


def compile_blocks(module: nn.Module) -> int:
    """Have each block inside a module compiled when a training step calls it next; give how many there are.

    Blocks that are alike share their code. One that can't be compiled, for want of a compiler, stays as it is, and torch's log says so.
    """
    import torch._dynamo
    import torch._functorch.config

    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = _VARIANTS
    torch._dynamo.config.optimize_ddp = False  # it would cut blocks in two, and they are small enough
    # Gradients are compiled in this thread too, under the settings that hold here.
    torch._functorch.config.force_non_lazy_backward_lowering = True
    for blocks in _inside(module):
        # Batches of a study have two sizes at most, and kernels of a known size are faster.
        blocks.compiled = tuple(torch.compile(block.forward, dynamic=False) for block in blocks)
    return sum(len(blocks) for blocks in _inside(module))


def _inside(module: nn.Module) -> Iterator[Blocks]:
    return (inner for inner in module.modules() if isinstance(inner, Blocks))
