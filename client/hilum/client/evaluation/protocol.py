"""The standard protocol: every arm, every protocol, every share of the labels, on the same test patients.

Arms with an encoder are measured by neighbours, probe and fine-tuning; `random` by neighbours and probe (fine-tuned,
it is `scratch`); `raw` pixels by neighbours and probe.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import labelled_share
from hilum.client.evaluation.measurements import Measurements
from hilum.client.tasks import classification
from hilum.client.tasks.classification import LabelledRows, Probabilities
from hilum.common.config import StudyConfig
from hilum.common.encoders import Encoder, build_encoder
from hilum.common.encoders.base import initialise
from hilum.common.errors import DataError
from hilum.common.progress import NullProgress, Progress
from hilum.common.results_table import Evaluation, combinations
from hilum.common.seeding import derive
from hilum.common.weights import NamedWeights

_MIN_TEST_CLASSES = 2


def encoder_from(study: StudyConfig, weights: NamedWeights | None) -> Encoder:
    """Return the study's encoder with given weights, or with random ones that the seed decides."""
    encoder = build_encoder(study)
    initialise(encoder, torch.Generator().manual_seed(derive(study.study.seed, "random encoder")))
    if weights is not None:
        encoder.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return encoder


def evaluate_site(
    data: SiteData,
    study: StudyConfig,
    encoders: Mapping[str, NamedWeights],
    fabric: Fabric,
    progress: Progress,
    steps: Progress | None = None,
) -> Evaluation:
    """Measure every arm at one site.

    Args:
        data: The site's images, labels and split.
        study: Which arms, protocols and label fractions.
        encoders: Weights by arm; `scratch`, `random` and `raw` need none, and an arm without weights is left out.
        fabric: The device.
        progress: Told after each combination.
        steps: Told after each step of a fine-tuning.

    Raises:
        DataError: If the site's test patients do not have two classes.
    """
    names = sorted({label for label in data.labels if label is not None})
    test = data.split.test
    if len({data.labels[row] for row in test}) < _MIN_TEST_CLASSES:
        raise DataError(
            f"{data.name}: the test patients have {len({data.labels[row] for row in test})} class(es), two are needed; "
            "add labelled patients of another class"
        )
    number = {name: index for index, name in enumerate(names)}
    truth = np.array([number[str(data.labels[row])] for row in test], np.int64)
    measured = Measurements(
        data.name,
        data.split.group[test],
        truth,
        len(names),
        study.evaluation.bootstrap_draws,
        study.study.seed,
    )
    runner = _Runner(data, study, encoders, fabric, steps or NullProgress())
    for done, (protocol, share, arm) in enumerate(combinations(study.evaluation, encoders), 1):
        rows = labelled_share(data.split, data.labels, share, seed=study.study.seed)
        train = LabelledRows(
            rows, np.array([number[str(data.labels[row])] for row in rows], np.int64), len(names)
        )
        measured.add(protocol, share, arm, runner.predict(protocol, arm, train))
        progress.advance(done, f"{arm} {protocol} {share:.0%}")
    return measured.table()


def combinations_count(study: StudyConfig, encoders: Mapping[str, NamedWeights]) -> int:
    """Return how many times `evaluate_site` advances its progress."""
    return len(list(combinations(study.evaluation, encoders)))


class _Runner:
    """Predictions of one site's test images; features of an arm are computed once."""

    def __init__(
        self,
        data: SiteData,
        study: StudyConfig,
        encoders: Mapping[str, NamedWeights],
        fabric: Fabric,
        steps: Progress,
    ) -> None:
        self.steps = steps
        self.data, self.study, self.encoders, self.fabric = data, study, encoders, fabric
        self.features: dict[str, npt.NDArray[np.float32]] = {}

    def predict(self, protocol: str, arm: str, train: LabelledRows) -> Probabilities:
        test = self.data.split.test
        if protocol == "finetune":
            encoder = encoder_from(self.study, self.encoders.get(arm))
            return classification.predict_by_finetuning(
                encoder, self.data.images, train, test, self.study, self.fabric, self.steps
            )
        table = self._features(arm)
        if protocol == "knn":
            return classification.predict_by_neighbours(
                table[train.rows], train, table[test], self.study.evaluation.knn_k
            )
        patients = self.data.split.group[train.rows]
        return classification.predict_by_probe(table[train.rows], train, table[test], patients)

    def _features(self, arm: str) -> npt.NDArray[np.float32]:
        if arm not in self.features:
            rows = np.arange(len(self.data.images))
            if arm == "raw":
                self.features[arm] = classification.pixel_features(self.data.images, rows, self.study)
            else:
                encoder = encoder_from(self.study, self.encoders.get(arm))
                self.features[arm] = classification.encoder_features(
                    encoder, self.data.images, rows, self.study, self.fabric
                )
        return self.features[arm]
