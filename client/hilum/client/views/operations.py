"""Batched operations on images in [0, 1]. All numbers that they use are arguments.

Shapes: B batch, C channels, *S space (H W, or D H W).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_and_rotate(
    images: Tensor, scale: Tensor, centre: Tensor, angle: Tensor, size: int | Sequence[int]
) -> Tensor:
    """Cut a rotated part of the same proportions out of each image, in one resampling.

    Args:
        images: (B, C, *S).
        scale: (B,) edges of the cut as a share of the image's, at most `largest_scale`.
        centre: (B, dims) in [-1, 1], from one extreme place of the turned cut to the other; x first.
        angle: (B,) radians in the plane of the last two axes.
        size: Edge of the result, or each edge.

    Returns:
        (B, C, *S) of that size, all of it from inside the image.
    """
    B, C = images.shape[:2]
    dims = images.ndim - 2
    theta = torch.zeros(B, dims, dims + 1, device=images.device, dtype=images.dtype)
    theta[:, 0, 0] = theta[:, 1, 1] = scale * angle.cos()
    height, width = images.shape[-2:]  # a turn is one of millimetres, whatever the proportions
    theta[:, 0, 1] = -scale * angle.sin() * (height / width)
    theta[:, 1, 0] = scale * angle.sin() * (width / height)
    if dims == 3:  # noqa: PLR2004 - dimensions, not a threshold
        theta[:, 2, 2] = scale
    reach = scale[:, None].repeat(1, dims)
    reach[:, 0] = scale * (angle.cos().abs() + height / width * angle.sin().abs())
    reach[:, 1] = scale * (angle.cos().abs() + width / height * angle.sin().abs())
    theta[:, :, dims] = centre * (1 - reach)
    edges = [size] * dims if isinstance(size, int) else size
    grid = F.affine_grid(theta, [B, C, *edges], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def largest_scale(angle: Tensor, proportion: float = 1.0) -> Tensor:
    """Return the largest edge (B,), as a share, of a rectangle turned by an angle (B,) that lies within one like it.

    Args:
        angle: (B,) radians.
        proportion: Of one edge of the rectangle to the other.
    """
    longer = max(proportion, 1 / proportion)
    return 1 / (angle.cos().abs() + longer * angle.sin().abs())


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Stretch each image about its mean; factor (B,)."""
    mean = images.flatten(1).mean(1)
    return (_wide(mean, images) + _wide(factor, images) * (images - _wide(mean, images))).clamp(0, 1)


def adjust_gamma(images: Tensor, exponent: Tensor) -> Tensor:
    """Raise each image to its exponent (B,)."""
    # The slope of x ** g is infinite at 0 for g < 1, so nothing is exactly 0.
    return images.clamp_min(1e-6) ** _wide(exponent, images)


def apply_bias_field(images: Tensor, coefficients: Tensor) -> Tensor:
    """Multiply each image by exp of a linear and quadratic field; coefficients (B, 2 * dims) bound its logarithm."""
    dims = images.ndim - 2
    field = torch.zeros_like(images[:, :1])
    for axis in range(dims):
        line = torch.linspace(-1, 1, images.shape[2 + axis], device=images.device, dtype=images.dtype)
        line = line.view([-1 if other == axis else 1 for other in range(dims)])
        field = field + _wide(coefficients[:, 2 * axis], images) * line
        field = field + _wide(coefficients[:, 2 * axis + 1], images) * (line.square() - 1 / 3)
    return (images * field.exp()).clamp(0, 1)


def blur(images: Tensor, sigma_px: Tensor, radius: int) -> Tensor:
    """Gaussian blur, one axis after the other, with a deviation for each image; sigma (B,), 0 leaves it sharp.

    Beyond its border an image goes on with the border's values: zeros would darken it there.
    """
    reach = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (reach / sigma_px.clamp_min(1e-3)[:, None]).square())
    kernel = kernel / kernel.sum(1, keepdim=True)
    return blur_by_products(images, kernel) if images.is_cuda else blur_by_convolutions(images, kernel)


def blur_by_products(images: Tensor, kernel: Tensor) -> Tensor:
    """Blur with a matrix an axis; kernel (B, 2 * radius + 1). Fast on a GPU, whose convolutions of one channel are slow.

    No sum in it is without an order, so the same images give the same bits.
    """
    radius = kernel.shape[1] // 2
    for axis in range(2, images.ndim):
        edge = images.shape[axis]
        to, taken = (torch.arange(n, device=images.device) for n in (edge, edge + 2 * radius))
        tap = taken[None] - to[:, None]
        beyond = (tap < 0) | (tap > 2 * radius)
        wide = kernel[:, tap.clamp(0, 2 * radius)].masked_fill(beyond, 0.0)
        first, last = wide[:, :, :radius].sum(2, keepdim=True), wide[:, :, -radius:].sum(2, keepdim=True)
        matrix = wide[:, :, radius:-radius] + F.pad(first, (0, edge - 1)) + F.pad(last, (edge - 1, 0))
        lines = images.movedim(axis, 2)
        images = (matrix[:, None] @ lines.flatten(3)).view(lines.shape).movedim(2, axis)
    return images


def blur_by_convolutions(images: Tensor, kernel: Tensor) -> Tensor:
    """Blur with a convolution an axis; kernel (B, 2 * radius + 1)."""
    B, C = images.shape[:2]
    dims, radius = images.ndim - 2, kernel.shape[1] // 2
    kernel = kernel.repeat_interleave(C, 0)
    convolve = F.conv2d if dims == 2 else F.conv3d  # noqa: PLR2004 - dimensions, not a threshold
    out = images.reshape(1, B * C, *images.shape[2:])
    for axis in range(dims):
        shape = [B * C, 1, *[2 * radius + 1 if other == axis else 1 for other in range(dims)]]
        padding = [radius if other == axis else 0 for other in reversed(range(dims)) for _side in range(2)]
        out = convolve(F.pad(out, padding, mode="replicate"), kernel.view(shape), groups=B * C)
    return out.view_as(images)


def _wide(values: Tensor, images: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, ...) to go with the images."""
    return values.view(-1, *[1] * (images.ndim - 1))
