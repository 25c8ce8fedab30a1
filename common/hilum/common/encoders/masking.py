"""Let a convolution see a part of an image alone (arXiv 2301.03580).

Everything removed is 0 before and after every layer, and norms are over what is seen, so nothing of it reaches the rest.

Shapes: B batch, C channels, *S space. What is seen is (B, 1, *any) of 0 and 1, on any grid.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def seen_of(mask: Tensor | None, images: Tensor) -> Tensor | None:
    """Turn a mask (B, *G), 1 where the image is removed, into what is seen."""
    return None if mask is None else 1 - mask[:, None].to(images.dtype)


def shown(x: Tensor, seen: Tensor | None) -> Tensor:
    """Set to 0 what of (B, C, *S) is not seen."""
    if seen is None:
        return x
    # Not by a product: what is hidden may not be finite.
    return x.masked_fill(F.interpolate(seen, x.shape[2:], mode="nearest") == 0, 0)


def normed(norm: nn.GroupNorm, x: Tensor, seen: Tensor | None) -> Tensor:
    """Normalise (B, C, *S) over what is seen, or over all; what is not seen becomes 0."""
    if seen is None:
        out: Tensor = norm(x)
        return out
    B, G = len(x), norm.num_groups
    here = F.interpolate(seen, x.shape[2:], mode="nearest").expand_as(x)
    inside = here.reshape(B, G, -1)
    values = (x * here).reshape(B, G, -1)
    count = inside.sum(2, keepdim=True)
    centred = (values - values.sum(2, keepdim=True) / count) * inside
    variance = centred.square().sum(2, keepdim=True) / count
    scaled = (centred / (variance + norm.eps).sqrt()).view_as(x)
    wide = [1, -1, *[1] * (x.ndim - 2)]
    shifted: Tensor = scaled * norm.weight.view(wide) + norm.bias.view(wide)
    return shifted * here
