"""Rows of all processes that train one batch together, with gradients that go back to whoever they came from.

Shapes: n rows here, N of all processes. Row k here is row `rank + k * processes` of all.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> tuple[int, int]:
    """Return the number of this process among those that train together, and how many they are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class _Gather(torch.autograd.Function):
    """Rows (most, ...) of each process -> (processes, most, ...) at all of them; gradients are summed on the way back."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        del context
        found = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(found, rows.contiguous())
        return torch.stack(found)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        del context
        summed = gradient.contiguous()
        dist.all_reduce(summed)
        return summed[dist.get_rank()]


def gather_rows(rows: Tensor, total: int) -> Tensor:
    """Return the rows of all processes (N, ...), in the order of the batch.

    A loss that compares all of them, taken for the rows of each process alone and averaged over processes, has the
    gradient of one process that holds the whole batch: the backward pass sums over processes.

    Args:
        rows: (n, ...), n at least 1.
        total: N.
    """
    _, count = processes()
    if count == 1:
        return rows
    most = -(-total // count)
    padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
    gathered: Tensor = _Gather.apply(padded)  # type: ignore[no-untyped-call]
    return gathered.transpose(0, 1).flatten(0, 1)[:total]


def own_rows(rows: Tensor) -> Tensor:
    """Return the rows (n, ...) of this process out of those of all (N, ...)."""
    rank, count = processes()
    return rows[rank::count]
