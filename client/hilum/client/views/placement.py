"""Where a crop is taken: on what shows something.

Shapes: B batch, C channels, *S space (H W, or D H W), G cells.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_CELLS = {2: 32, 3: 16}


def centre_on_tissue(images: Tensor, scale: Tensor, place: Tensor, threshold: float) -> Tensor:
    """Choose the middle of each crop among the cells of its image that are brighter than a threshold, all alike likely.

    Args:
        images: (B, C, *S) in [0, 1].
        scale: (B,) edge of the crop as a share of the image's edge.
        place: (B,) uniform in [0, 1): which of the cells.
        threshold: Of a cell's mean. In an image without such a cell, all are taken.

    Returns:
        (B, dims) in [-1, 1], x first, as `operations.crop_and_rotate` takes it. A crop does not leave the image, so near an
        edge its middle is not the cell but the nearest place that it can have.
    """
    dims = images.ndim - 2
    cells = _CELLS[dims]
    pool = F.adaptive_avg_pool2d if dims == 2 else F.adaptive_avg_pool3d  # noqa: PLR2004 - dimensions, not a threshold
    mean = pool(images.mean(1, keepdim=True), cells)
    bright = (mean.flatten(1) > threshold).to(torch.int64)
    bright = torch.where(bright.any(1, keepdim=True), bright, torch.ones_like(bright))
    counted = bright.cumsum(1)
    number = (place.to(torch.float64) * counted[:, -1]).floor().to(torch.int64)
    chosen = (counted <= number[:, None]).sum(1)
    along = [(chosen // cells**axis) % cells for axis in range(dims)]
    middle = (torch.stack(along, 1).to(images.dtype) * 2 + 1) / cells - 1
    room = (1 - scale).clamp_min(1e-6)[:, None]
    return (middle / room).clamp(-1, 1)
