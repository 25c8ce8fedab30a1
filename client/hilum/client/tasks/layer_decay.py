"""Optimizer groups of a fine-tuning: early layers move less than late ones, and norms and biases do not decay.

The rate of a layer is the peak times `decay` to the power of how many layers come after it (arXiv 2106.08254, as fine-tuning
of masked autoencoders takes it, arXiv 2111.06377): what comes before the blocks is one layer, each block is one, and what comes
after them is one with the head, which has the peak.
"""

from typing import Any

from torch import nn

from hilum.client.pretraining.parameter_groups import parameter_groups
from hilum.common.encoders import Encoder
from hilum.common.encoders.blocks import Blocks


def layer_groups(
    encoder: Encoder, head: nn.Module, *, peak: float, decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return groups of what trains, each with the highest rate that it takes as `peak`.

    Args:
        encoder: The encoder.
        head: The head on it.
        peak: The rate of the head.
        decay: From 0 to 1; 1 gives every layer the peak.
        weight_decay: Of matrices.
    """
    blocks = [block for inner in encoder.modules() if isinstance(inner, Blocks) for block in inner]
    first = [getattr(encoder, name) for name in encoder.before_blocks]
    known = {
        id(parameter) for part in [*first, *blocks] if part is not None for parameter in part.parameters()
    }
    rest = [parameter for parameter in encoder.parameters() if id(parameter) not in known]
    layers: list[list[nn.Parameter]] = [
        [parameter for part in first if part is not None for parameter in part.parameters()],
        *(list(block.parameters()) for block in blocks),
        [*rest, *head.parameters()],
    ]
    last = len(layers) - 1
    return [
        {**group, "peak": peak * decay ** (last - number)}
        for number, layer in enumerate(layers)
        for group in parameter_groups(layer, weight_decay)
        if group["params"]
    ]
