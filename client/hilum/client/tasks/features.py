"""Features of whole images and whole volumes, for all that rests on a frozen encoder.

Shapes: N rows, n pieces in a batch, C channels, *S space as the encoder sees it, E features.

An image is one piece. A volume of which a study takes patches or slices is many: what a model gives for it is the mean over
those that show something.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from hilum.client.data.prepared import Stored
from hilum.client.data.volumes import Volumes
from hilum.client.tasks.base import Features, Rows
from hilum.client.views import Viewer, to_unit
from hilum.common.config import StudyConfig
from hilum.common.encoders import Encoder
from hilum.common.footprint import RAW_EDGE

INFERENCE_BATCH = 64


def pieces_of(
    images: Stored, rows: Rows, viewer: Viewer, device: torch.device
) -> Iterator[tuple[Rows, Tensor]]:
    """Give all of some rows in batches.

    Yields:
        (n,) which of the rows each piece is of, and the pieces (n, C, *S) in [0, 1].
    """
    if not isinstance(images, Volumes):
        for start in range(0, len(rows), INFERENCE_BATCH):
            places = np.arange(start, min(start + INFERENCE_BATCH, len(rows)))
            yield places, viewer.whole(to_unit(images[rows[places]], device))
        return
    origins = [images.covering_origins(row) for row in rows.tolist()]
    places = np.repeat(np.arange(len(rows)), [len(some) for some in origins])
    begins = np.concatenate(origins)
    for start in range(0, len(places), INFERENCE_BATCH):
        part = slice(start, start + INFERENCE_BATCH)
        yield places[part], viewer.whole(to_unit(images.seen(rows[places[part]], begins[part]), device))


def mean_by_row(count: int, parts: Iterable[tuple[Rows, Tensor]]) -> Tensor:
    """Return the mean of each of `count` rows, (count, ...), on the CPU.

    Args:
        count: How many rows there are; each has a piece.
        parts: (n,) row numbers, and (n, ...) what a model gave for their pieces.
    """
    sums, pieces = torch.zeros(0), torch.zeros(count)
    for rows, values in parts:
        index, given = torch.from_numpy(rows), values.float().cpu()
        sums = sums if len(sums) else torch.zeros(count, *given.shape[1:])
        sums.index_add_(0, index, given)
        pieces.index_add_(0, index, torch.ones(len(rows)))
    return sums / pieces.view(-1, *[1] * (sums.ndim - 1))


def pixel_features(images: Stored, rows: Rows, study: StudyConfig) -> Features:
    """Return the image as the encoder would see it, laid flat: the baseline that every encoder must beat.

    Of a volume that an encoder sees in pieces, all of it, averaged to a small cube.
    """
    if isinstance(images, Volumes):
        return np.stack([_small(images, row) for row in rows.tolist()])
    whole = Viewer(study.data).whole(to_unit(images[rows], torch.device("cpu")))
    return whole.flatten(1).numpy()


def _small(volumes: Volumes, row: int) -> Features:
    """Return a volume in RAW_EDGE^3 averages, laid flat; one slice of it after the other is read."""
    cpu = torch.device("cpu")
    planes = [
        F.adaptive_avg_pool2d(to_unit(np.array(plane)[None, None], cpu), RAW_EDGE)
        for plane in volumes.files[row].values()
    ]
    stack = torch.cat(planes).flatten(1).T  # (RAW_EDGE^2, D)
    return F.adaptive_avg_pool1d(stack, RAW_EDGE).T.flatten().numpy()


@torch.no_grad()
def encoder_features(
    encoder: Encoder, images: Stored, rows: Rows, study: StudyConfig, fabric: Fabric
) -> Features:
    """Return (N, E) features of whole images or volumes, in single precision whatever else is computed in."""
    module = encoder.to(fabric.device).eval()

    def features() -> Iterator[tuple[Rows, Tensor]]:
        for places, batch in pieces_of(images, rows, Viewer(study.data), fabric.device):
            yield places, module(batch)

    return mean_by_row(len(rows), features()).numpy()
