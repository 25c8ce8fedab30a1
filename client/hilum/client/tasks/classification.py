"""Classification from an encoder: nearest neighbours, a linear probe, full fine-tuning.

Shapes: N images, M test images, K classes, E features.
"""

import copy
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from hilum.client.data.prepared import Packed
from hilum.client.pretraining.parameter_groups import parameter_groups
from hilum.client.pretraining.schedule import learning_rate_factor, step_middle
from hilum.client.tasks.probe import fit_probe
from hilum.client.views import Viewer, to_unit
from hilum.common.config import StudyConfig
from hilum.common.encoders import Encoder
from hilum.common.methods import ViewPlan
from hilum.common.progress import Progress
from hilum.common.seeding import derive, generator

Rows = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
_INFERENCE_BATCH = 64
_WARMUP = 0.1
_WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class LabelledRows:
    """Rows and their classes.

    Attributes:
        rows: (N,) rows of the prepared images.
        classes: (N,) class numbers.
        count: K.
    """

    rows: Rows = field(repr=False)
    classes: Rows = field(repr=False)
    count: int


def pixel_features(images: Packed, rows: Rows, study: StudyConfig) -> npt.NDArray[np.float32]:
    """Return the image as the encoder would see it, laid flat: the baseline that every encoder must beat."""
    viewer = Viewer(study.data, ViewPlan(1, "crop"))
    return viewer.whole(to_unit(images[rows], torch.device("cpu"))).flatten(1).numpy()


@torch.no_grad()
def encoder_features(
    encoder: Encoder, images: Packed, rows: Rows, study: StudyConfig, fabric: Fabric
) -> npt.NDArray[np.float32]:
    """(N, E) features of whole images."""
    viewer = Viewer(study.data, ViewPlan(1, "crop"))
    module = encoder.to(fabric.device).eval()
    parts = []
    for start in range(0, len(rows), _INFERENCE_BATCH):
        batch = to_unit(images[rows[start : start + _INFERENCE_BATCH]], fabric.device)
        with fabric.autocast():
            parts.append(module(viewer.whole(batch)).float().cpu().numpy())
    return np.concatenate(parts)


def predict_by_neighbours(
    features: npt.NDArray[np.float32], train: LabelledRows, test_features: npt.NDArray[np.float32], k: int
) -> Probabilities:
    """Return (M, K) by the k nearest training images in cosine distance, nearer ones counting more.

    Features are centred by those of the training images: what all images share says nothing of how near two are.
    """
    centre = features.mean(0)
    model = KNeighborsClassifier(min(k, len(train.rows)), weights="distance", metric="cosine")
    model.fit(features - centre, train.classes)
    return _all_classes(model.predict_proba(test_features - centre), model.classes_, train.count)


def predict_by_probe(
    features: npt.NDArray[np.float32],
    train: LabelledRows,
    test_features: npt.NDArray[np.float32],
    patients: Rows,
) -> Probabilities:
    """Return (M, K) by a logistic regression on standardised features; see `fit_probe`."""
    scaler = StandardScaler().fit(features.astype(np.float64))
    model = fit_probe(scaler.transform(features.astype(np.float64)), train.classes, patients)
    scores = model.predict_proba(scaler.transform(test_features.astype(np.float64)))
    return _all_classes(scores, model.classes_, train.count)


def predict_by_finetuning(
    encoder: Encoder,
    images: Packed,
    train: LabelledRows,
    test: Rows,
    study: StudyConfig,
    fabric: Fabric,
    steps: Progress,
) -> Probabilities:
    """Return (M, K) after training a copy of the encoder and a linear head on the labelled rows.

    Every arm trains for as many steps, on the same batches and views: they depend on the study alone. Classes weigh the
    same; the rate climbs over a tenth of the steps and falls to zero by a cosine.
    """
    evaluation, seed = study.evaluation, study.study.seed
    head = nn.Linear(encoder.width, train.count)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model = nn.Sequential(copy.deepcopy(encoder), head)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, _WEIGHT_DECAY), lr=evaluation.finetune_learning_rate, fused=True
    )
    module, wrapped_optimizer = fabric.setup(model, optimizer)
    module.train()
    viewer = Viewer(study.data, ViewPlan(1, "crop"))
    weight = _class_weights(train).to(fabric.device)
    steps_an_epoch, epochs = finetuning_steps(len(train.rows), study)
    total = steps_an_epoch * epochs
    for epoch in range(epochs):
        order = generator(seed, "finetune", epoch).permutation(len(train.rows))
        for index, places in enumerate(np.array_split(order, steps_an_epoch)):
            number = epoch * steps_an_epoch + index
            for group in optimizer.param_groups:
                group["lr"] = evaluation.finetune_learning_rate * learning_rate_factor(
                    step_middle(number, total), _WARMUP
                )
            rng = torch.Generator().manual_seed(derive(seed, "finetune", "step", number))
            views = viewer(to_unit(images[train.rows[places]], fabric.device), rng)[:, 0]
            truth = torch.from_numpy(train.classes[places]).to(fabric.device)
            wrapped_optimizer.zero_grad()
            fabric.backward(F.cross_entropy(module(views), truth, weight=weight))
            fabric.clip_gradients(module, wrapped_optimizer, max_norm=1.0)
            wrapped_optimizer.step()
            steps.advance(number + 1)
    return _predict(module, viewer, images, test, fabric)


def finetuning_steps(images: int, study: StudyConfig) -> tuple[int, int]:
    """Return the steps of an epoch, and how many epochs of them it takes to reach the study's epochs and its least steps.

    Args:
        images: How many are trained on, one or more.
        study: The study.
    """
    evaluation = study.evaluation
    steps = -(-images // evaluation.finetune_batch_size)
    return steps, max(evaluation.finetune_epochs, -(-evaluation.finetune_min_steps // steps))


@torch.no_grad()
def _predict(module: nn.Module, viewer: Viewer, images: Packed, rows: Rows, fabric: Fabric) -> Probabilities:
    module.eval()
    parts: list[Tensor] = []
    for start in range(0, len(rows), _INFERENCE_BATCH):
        batch = to_unit(images[rows[start : start + _INFERENCE_BATCH]], fabric.device)
        parts.append(module(viewer.whole(batch)).float().softmax(1).cpu())
    return torch.cat(parts).double().numpy()


def _class_weights(train: LabelledRows) -> Tensor:
    """Weights that let every class count the same; classes without an image get 0."""
    counts = np.bincount(train.classes, minlength=train.count).astype(np.float32)
    present = counts > 0
    weights = np.zeros(train.count, np.float32)
    weights[present] = len(train.classes) / (present.sum() * counts[present])
    return torch.from_numpy(weights)


def _all_classes(found: npt.NDArray[np.float64], classes: npt.NDArray[np.int64], count: int) -> Probabilities:
    """Spread probabilities of the classes that were trained on over all classes."""
    spread = np.zeros((len(found), count))
    spread[:, classes] = found
    return spread
