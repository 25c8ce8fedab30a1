"""Batched changes that are ultrasound's own, on images in [0, 1]. All numbers that they use are arguments.

Shapes: B batch, C channels, H W space; the probe is above the first row.
"""

import torch
from torch import Tensor


def apply_depth_gain(images: Tensor, coefficients: Tensor) -> Tensor:
    """Amplify by depth, as the sliders of time gain compensation do; black stays black.

    Args:
        images: (B, C, H, W).
        coefficients: (B, 2), of the line and of the parabola whose sum is the gain's logarithm, each from -1 to 1 in depth.
    """
    depth = torch.linspace(-1, 1, images.shape[2], device=images.device, dtype=images.dtype)
    logarithm = coefficients[:, :1] * depth + coefficients[:, 1:] * (1.5 * depth.square() - 0.5)
    return (images * logarithm.exp()[:, None, :, None]).clamp(0, 1)


def add_speckle(images: Tensor, grain: Tensor, strength: Tensor) -> Tensor:
    """Add noise that is as strong as the image is bright.

    Args:
        images: (B, C, H, W).
        grain: (B, 1, H, W), normal.
        strength: (B,), the deviation of the factor.
    """
    return (images * (1 + strength.view(-1, 1, 1, 1) * grain)).clamp(0, 1)
