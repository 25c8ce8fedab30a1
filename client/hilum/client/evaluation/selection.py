"""How good an encoder is on validation patients: what picks the best round, and never sees a test patient.

Shapes: n labelled training images, E features.
"""

from dataclasses import replace

import numpy as np
from lightning_fabric import Fabric

from hilum.client.data.site_data import SiteData
from hilum.client.evaluation.protocol import encoder_from
from hilum.client.pretraining.device import Device, make_fabric
from hilum.client.pretraining.site import Score
from hilum.client.tasks.features import encoder_features
from hilum.client.tasks.registry import open_task
from hilum.common.config import StudyConfig
from hilum.common.encoders import Encoder
from hilum.common.errors import DataError
from hilum.common.methods import build_method
from hilum.common.methods.parts import encoder_part, federated_manifest
from hilum.common.seeding import generator
from hilum.common.weights import FlatWeights

_FOLDS = 5
_MAX_IMAGES = 1000


def score_encoder(encoder: Encoder, data: SiteData, study: StudyConfig, fabric: Fabric) -> float:
    """Return the first task's primary metric by nearest neighbours, cross-validated by patient over labelled training patients.

    Each image is predicted from the images of other patients. Patients, folds and images are the same in every round, so
    that scores differ by the encoder alone.

    Args:
        encoder: The encoder.
        data: The site's images and labels.
        study: The study, which names a task.
        fabric: The device.

    Raises:
        DataError: If the labelled training patients have no two classes, or are too few to be told from one another.
    """
    first = study.tasks.first
    assert first is not None, "the study names a task"
    data = data.of_task(first.kind)
    rows, fold = validation_folds(data, study.study.seed)
    # The same task, with all validation patients in the place of the test patients.
    task = open_task(replace(data, split=replace(data.split, test=rows)), study, first.kind)
    features = encoder_features(encoder, data.images, rows, study, fabric)
    predicted = None
    for number in range(_FOLDS):
        held, known = fold == number, fold != number
        found = task.predict_by_neighbours(features[known], rows[known], features[held])
        predicted = np.zeros((len(rows), *found.shape[1:])) if predicted is None else predicted
        predicted[held] = found
    assert predicted is not None, "there are folds"
    metric = task.section.primary()
    return float(task.scores(predicted, np.ones((1, len(rows))))[metric].draws[0])


def score_weights(
    weights: FlatWeights, data: SiteData, study: StudyConfig, *, device: Device = "auto"
) -> float:
    """Return the same of a method's federated weights (P,), in single precision."""
    manifest = federated_manifest(build_method(study))
    encoder = encoder_from(study, encoder_part(manifest, weights))
    return score_encoder(encoder, data, study, make_fabric(device, "fp32", study.training.threads))


def scorer(data: SiteData, study: StudyConfig, *, device: Device = "auto") -> Score | None:
    """Return what picks a round of a site's own pre-training, as the study has it; None where the last one is taken."""
    if study.training.select == "none":
        return None
    if study.training.select == "loss":
        return lambda sent, _weights: -sent.outcome.loss
    return lambda _sent, weights: score_weights(weights, data, study, device=device)


def validation_patients(data: SiteData, study: StudyConfig) -> int:
    """Return how many patients stand behind a score; errors as of `validation_folds`."""
    assert study.tasks.first is not None, "the study names a task"
    data = data.of_task(study.tasks.first.kind)
    return len(np.unique(data.split.group[validation_folds(data, study.study.seed)[0]]))


def validation_folds(
    data: SiteData, seed: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return validation rows (n,) of a task's data and the fold of each; the images of a patient are in one.

    Raises:
        DataError: If there are fewer patients than folds.
    """
    patients = np.unique(data.split.group[data.split.train])
    if len(patients) < _FOLDS:
        raise DataError(
            f'{data.name}: {len(patients)} labelled training patients are too few for training.select = "knn", which needs {_FOLDS}'
        )
    order = generator(seed, data.name, "validation").permutation(patients)
    fold_of = dict(zip(order.tolist(), (np.arange(len(order)) % _FOLDS).tolist(), strict=True))
    rows = data.split.train
    if len(rows) > _MAX_IMAGES:
        chosen = generator(seed, data.name, "validation images").permutation(len(rows))[:_MAX_IMAGES]
        rows = rows[np.sort(chosen)]
    return rows, np.array([fold_of[number] for number in data.split.group[rows].tolist()], np.int64)
