"""Features of whole images, for all that rests on a frozen encoder."""

import numpy as np
import torch
from lightning_fabric import Fabric

from hilum.client.data.prepared import Packed
from hilum.client.tasks.base import Features, Rows
from hilum.client.views import Viewer, to_unit
from hilum.common.config import StudyConfig
from hilum.common.encoders import Encoder

INFERENCE_BATCH = 64


def pixel_features(images: Packed, rows: Rows, study: StudyConfig) -> Features:
    """Return the image as the encoder would see it, laid flat: the baseline that every encoder must beat."""
    whole = Viewer(study.data).whole(to_unit(images[rows], torch.device("cpu")))
    return whole.flatten(1).numpy()


@torch.no_grad()
def encoder_features(
    encoder: Encoder, images: Packed, rows: Rows, study: StudyConfig, fabric: Fabric
) -> Features:
    """Return (n, E) features of whole images."""
    viewer = Viewer(study.data)
    module = encoder.to(fabric.device).eval()
    parts = []
    for start in range(0, len(rows), INFERENCE_BATCH):
        batch = to_unit(images[rows[start : start + INFERENCE_BATCH]], fabric.device)
        with fabric.autocast():
            parts.append(module(viewer.whole(batch)).float().cpu().numpy())
    return np.concatenate(parts)
