"""Batched changes of colour on images in [0, 1]. All numbers that they use are arguments.

Shapes: B batch, 3 channels (red, green, blue), H W space.
"""

from functools import lru_cache

import torch
from torch import Tensor

_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (Rec. ITU-R BT.601)
_DARKEST = 1e-3  # nothing that is stained lets less light through; below it a density would be noise

_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Densities of hematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23(4), 2001)."""


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move colours from or to grey of the same luminance; factor (B,), 0 is grey and 1 leaves them."""
    weights = _constant(_LUMINANCE, images.device, images.dtype)
    grey = torch.einsum("bchw,c->bhw", images, weights)[:, None]
    return (grey + factor.view(-1, 1, 1, 1) * (images - grey)).clamp(0, 1)


def shift_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of the HSV model; turn (B,) in whole turns of its circle. Value and saturation stay."""
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    red, green, blue = images.unbind(1)
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    turned = hue + 6 * turn.view(-1, 1, 1)  # in sixths of a turn

    def channel(offset: float) -> Tensor:
        k = torch.remainder(turned + offset, 6)
        return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], 1)


def adjust_stain(images: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """Change how much hematoxylin, eosin and DAB there is (arXiv 1902.06543).

    Light that comes through falls by a power of ten with density, so stains add up in its logarithm.

    Args:
        images: (B, 3, H, W).
        factor: (B, 3), of each stain's density.
        offset: (B, 3), added to it.
    """
    colours, unmix = _stains(images.device, images.dtype)
    density = -images.clamp_min(_DARKEST).log10()
    stains = torch.einsum("bchw,cs->bshw", density, unmix)
    stains = stains * factor[:, :, None, None] + offset[:, :, None, None]
    mixed = torch.einsum("bshw,sc->bchw", stains, colours)
    return (10**-mixed).clamp(0, 1)


@lru_cache
def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return constants on a device; copied there once, for a device waits for each copy."""
    return torch.tensor(values, device=device, dtype=dtype)


@lru_cache
def _stains(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the stains' colours, and what unmixes them, (3, 3) each; worked out in float64, the same for every device."""
    colours = torch.tensor(_STAINS, dtype=torch.float64)
    colours = colours / colours.norm(dim=1, keepdim=True)
    return colours.to(device, dtype), torch.linalg.inv(colours).to(device, dtype)
