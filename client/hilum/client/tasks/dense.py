"""From a network that gives scores of each pixel to a mask on the image's own grid.

Shapes: C channels, *S the prepared space, *V what the encoder sees of it, *O the image's own space, D slices, H rows, W columns,
K classes with the background.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hilum.client.data.own_grid import ClassNumbers, OwnGrid
from hilum.client.data.prepared import Stored
from hilum.client.data.volumes import Volumes
from hilum.client.views import Viewer, to_unit

Network = Callable[[Tensor], Tensor]
_BATCH = 8  # pieces at a time: a decoder keeps maps of the full size
_OVERLAP = (
    0.5  # of neighbouring patches; each counts as a Gaussian about its middle (nnU-Net, arXiv 1809.10486)
)


@torch.no_grad()
def segment(
    network: Network, images: Stored, row: int, grid: OwnGrid, viewer: Viewer, device: torch.device
) -> ClassNumbers:
    """Return the class of each pixel or voxel of one image on its own grid, (*O).

    An image that is taken whole is seen whole; a volume in overlapping patches, or slice by slice.

    Args:
        network: (n, C, *V) in [0, 1] -> (n, K, *V), in evaluation.
        images: Prepared.
        row: Which of them.
        grid: Its own grid beside the prepared one.
        viewer: Of the study's images.
        device: Where the network is.
    """
    if not isinstance(images, Volumes):
        scores = network(viewer.whole(to_unit(images[np.array([row])], device)))[0]
    elif images.geometry.flat:
        scores = _by_slices(network, images, row, viewer, device)
    else:
        scores = _by_patches(network, images, row, device)
    return grid.classes_back(scores.float().softmax(0).cpu())


def _by_slices(network: Network, images: Volumes, row: int, viewer: Viewer, device: torch.device) -> Tensor:
    """Return scores (K, D, H, W) of a packed volume, each slice of which is seen whole."""
    depth, height, width = images.files[row].shape
    _, *edges = images.geometry.seen
    top, left = ((whole - edge) // 2 for whole, edge in zip((height, width), edges, strict=True))
    found = []
    for start in range(0, depth, _BATCH):
        planes = np.arange(start, min(start + _BATCH, depth))
        origins = np.stack([planes, np.full_like(planes, top), np.full_like(planes, left)], axis=1)
        seen = images.seen(np.full_like(planes, row), origins)
        scores = network(viewer.whole(to_unit(seen, device))).float().cpu()
        square = F.interpolate(scores, edges, mode="bilinear")
        found.append(square[..., -top : height - top, -left : width - left])
    return torch.cat(found).movedim(0, 1)


def _by_patches(network: Network, images: Volumes, row: int, device: torch.device) -> Tensor:
    """Return scores (K, D, H, W) of a packed volume, put together from patches."""
    from monai.inferers.utils import sliding_window_inference

    values = images.files[row].values()
    volume = to_unit(np.array(values)[None, None], torch.device("cpu"))
    scores = sliding_window_inference(
        volume,
        images.geometry.seen,
        _BATCH,
        lambda patches: network(patches).float(),
        overlap=_OVERLAP,
        mode="gaussian",
        padding_mode="constant",
        cval=float(volume.min()),
        sw_device=device,
        device=torch.device("cpu"),
    )
    assert isinstance(scores, Tensor), "the network gives one tensor"
    return scores[0]
