"""Low-rank adapters (arXiv 2106.09685): what is added to a weight has a small rank, and the weight itself stays.

Shapes: O outputs of a layer, I inputs, *K the edges of a convolution's kernel (none for a linear layer), r the rank.

A linear layer's weight W (O, I) becomes W + alpha / r * B A, with A (r, I) and B (O, r). A convolution's becomes the same
with A (r, I, *K): that is a convolution of the kernel's size to r channels, and one of 1 after it, added to the layer.
B begins at zero, so nothing changes at first. Adapters are part of the weight itself, so taking them out adds them to it.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hilum.common.encoders.blocks import Blocks

_ADAPTED = (nn.Linear, nn.Conv2d, nn.Conv3d)


class LowRank(nn.Module):
    """What is added to one weight.

    Args:
        weight: (O, I, *K).
        rank: r.
        alpha: Over `rank`, how much what is learned counts for.
        rng: Gives A its first values, uniform as those of the layer itself would be.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, rng: torch.Generator) -> None:
        super().__init__()
        outputs, *inputs = weight.shape
        bound = 1 / math.sqrt(math.prod(inputs))
        self.down = nn.Parameter(torch.empty(rank, *inputs).uniform_(-bound, bound, generator=rng))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, *K) -> the same shape."""
        adapted: Tensor = weight + self.scale * torch.tensordot(self.up, self.down, 1)
        return adapted


def add_adapters(module: nn.Module, rank: int, alpha: float, rng: torch.Generator) -> int:
    """Give every linear layer and convolution inside the blocks of an encoder an adapter; nothing else of it trains then.

    Args:
        module: The encoder. It computes the same as before.
        rank: r.
        alpha: See `LowRank`.
        rng: Gives adapters their first values, in the order of the layers.

    Returns:
        How many layers were adapted.
    """
    module.requires_grad_(False)
    layers = list(_layers(module))
    for layer in layers:
        adapter = LowRank(layer.weight, rank, alpha, rng)
        parametrize.register_parametrization(layer, "weight", adapter, unsafe=True)
    return len(layers)


def merge_adapters(module: nn.Module) -> None:
    """Add adapters to their weights, and take them out: the encoder has the names and shapes that it had before."""
    for layer in _layers(module):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _layers(module: nn.Module) -> Iterator[nn.Linear | nn.Conv2d | nn.Conv3d]:
    for blocks in module.modules():
        if isinstance(blocks, Blocks):
            yield from (layer for layer in blocks.modules() if isinstance(layer, _ADAPTED))
