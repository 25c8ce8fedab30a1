"""Kernels of convolutions for other channels, another number of dimensions, and a narrower edge.

Shapes: O outputs, C channels in the file, N channels of the study, k the kernel's edge.
"""

import torch
from torch import Tensor

CORRELATION = 0.95
"""Of neighbouring pixels, along each axis: the first-order Markov model of natural images (Jain, 1989, section 2.9)."""


def adapt_kernel(kernel: Tensor, channels: int, dims: int) -> tuple[Tensor, list[str]]:
    """Give a kernel the study's channels and dimensions.

    A grey image that is repeated in each channel gives what it gave, and so does a volume that is the same plane at every
    depth, away from its edges (arXiv 1705.07750).

    Args:
        kernel: (O, C, k, k), or (O, C, k, k, k).
        channels: N.
        dims: Of the study's images; not fewer than the kernel's.

    Returns:
        (O, N, *k), and what was done, in words.
    """
    done = []
    found = kernel.shape[1]
    if found != channels:
        kernel = kernel.sum(1, keepdim=True).expand(-1, channels, *kernel.shape[2:]) / channels
        spread = "" if channels == 1 else f", spread over {channels}"
        done.append(f"{found} channel{'' if found == 1 else 's'} summed{spread}")
    if kernel.ndim - 2 < dims:
        edge = kernel.shape[2]
        kernel = kernel[:, :, None].expand(-1, -1, edge, -1, -1) / edge
        done.append("a plane repeated in depth and divided by it")
    return kernel.contiguous(), done


def narrowed(kernel: Tensor, edge: int) -> tuple[Tensor, float]:
    """Return the narrower kernels whose responses are nearest to the wide ones', by least squares over images.

    Over images whose pixels correlate by `CORRELATION` ** distance along each axis the best narrow kernel is a regression
    of the wide one's response on the pixels in the middle.

    Args:
        kernel: (O, C, k, k).
        edge: Of the result, as odd or even as k.

    Returns:
        (O, C, edge, edge), and the share of the responses' variance that it keeps.
    """
    wide = kernel.shape[-1]
    places = torch.arange(wide, dtype=torch.float64)
    along = CORRELATION ** (places[:, None] - places).abs()
    covariance = torch.kron(along, along)
    first = (wide - edge) // 2
    middle = torch.zeros(wide, wide, dtype=torch.bool)
    middle[first : first + edge, first : first + edge] = True
    inside = middle.flatten()
    flat = kernel.double().flatten(2)
    best = torch.linalg.solve(
        covariance[inside][:, inside], (flat @ covariance[:, inside]).transpose(1, 2)
    ).transpose(1, 2)

    def variance(of: Tensor, under: Tensor) -> float:
        return float(((of @ under) * of).sum())

    kept = variance(best, covariance[inside][:, inside]) / variance(flat, covariance)
    return best.unflatten(2, (edge, edge)).float(), kept
