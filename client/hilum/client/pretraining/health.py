"""Measure whether an encoder still learns, on images of the site that it is trained on.

Shapes: N images, E features, *S space.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from hilum.client.data.prepared import drawn
from hilum.client.data.site_data import SiteData
from hilum.client.pretraining.checkpoint import load_state, save_state
from hilum.client.views import Viewer, random_numbers, to_unit
from hilum.common.config import StudyConfig
from hilum.common.encoders import Encoder
from hilum.common.seeding import derive, generator
from hilum.common.training_health import HEALTH_IMAGES

_START = "start-health.pt"


@torch.no_grad()
def encoder_health(encoder: Encoder, data: SiteData, study: StudyConfig, fabric: Fabric) -> dict[str, float]:
    """Return what `hilum.common.training_health` tells of an encoder, in single precision.

    The images, and the crop of each, are the same in every round, so that numbers differ by the encoder alone.
    """
    viewer, seed = Viewer(study.data, changes=study.views), study.study.seed
    rows = one_a_patient(data, seed, max(HEALTH_IMAGES, study.privacy.min_patients))
    stored = drawn(data.images, rows, generator(seed, data.name, "health", "blocks"))
    rng = random_numbers(fabric.device, derive(seed, data.name, "health", "crop"))
    module = encoder.to(fabric.device)
    told = []
    for start in range(0, len(rows), study.training.batch_size):  # as many at once as a step has, and no more
        images = to_unit(stored[start : start + study.training.batch_size], fabric.device)
        residuals = module.residuals(viewer.whole(images))
        squares = residuals.float().square().flatten(1).mean(1)
        told.append((module.pooled(residuals), module(viewer.one(images, rng)), squares))
    features, crops, squares = map(torch.cat, zip(*told, strict=True))
    unit = F.normalize(features.float(), dim=1)
    distance = F.pdist(unit).square()
    return {
        "feature_deviation": float(unit.std(0, correction=0).mean() * unit.shape[1] ** 0.5),
        "effective_rank": effective_rank(features),
        "residual_norm": float(squares.mean().sqrt()),
        "alignment": float((unit - F.normalize(crops.float(), dim=1)).square().sum(1).mean()),
        "uniformity": float(distance.mul(-2).exp().mean().log()) if len(distance) else 0.0,
    }


def effective_rank(features: Tensor) -> float:
    """Return exp of the entropy of the singular values of features (N, E), centred: 1 where all lie on a line.

    NaN, if a feature is not finite.
    """
    if not features.isfinite().all():
        return float("nan")
    values = torch.linalg.svdvals((features - features.mean(0)).double())
    total = values.sum()
    if not total > 0:
        return 1.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def start_health(
    encoder: Encoder, data: SiteData, study: StudyConfig, fabric: Fabric, folder: Path
) -> dict[str, float]:
    """Return the same of the encoder that the study starts from; measured in a run's first round, then read from its folder.

    A site that comes later has not seen the start, and measures the encoder that it is given in its place.
    """
    kept = load_state(folder / _START)
    if kept is None or kept["content"] != data.content_sha256:
        kept = {"content": data.content_sha256, "health": encoder_health(encoder, data, study, fabric)}
        save_state(folder / _START, kept)
    health: dict[str, float] = kept["health"]
    return {
        "start_deviation": health["feature_deviation"],
        "start_rank": health["effective_rank"],
        "start_norm": health["residual_norm"],
    }


def one_a_patient(data: SiteData, seed: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return `count` rows of training images, or all of them, of as many patients as possible."""
    shuffled = generator(seed, data.name, "health").permutation(data.split.pretrain)
    _, first = np.unique(data.split.group[shuffled], return_index=True)
    others = np.setdiff1d(np.arange(len(shuffled)), first)
    chosen: np.ndarray[tuple[int], np.dtype[np.int64]] = shuffled[np.concatenate([np.sort(first), others])]
    return chosen[:count]
