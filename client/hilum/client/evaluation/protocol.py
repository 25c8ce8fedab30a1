"""The standard protocol: every arm, every protocol, every share of the labels, on the same test patients.

Arms with an encoder are measured by every protocol; `random` by all but full fine-tuning (fine-tuned, it is `scratch`);
`raw` pixels by neighbours and probe.
"""

from collections.abc import Mapping

import numpy as np
import torch
from lightning_fabric import Fabric

from hilum.client.data.site_data import SiteData
from hilum.client.evaluation.measurements import Measurements
from hilum.client.tasks.base import Features, Predictions, Rows, Task
from hilum.client.tasks.features import encoder_features, pixel_features
from hilum.client.tasks.finetuning import MODES, Finetuned, Mode, predict_by_finetuning
from hilum.client.tasks.registry import open_task
from hilum.common.config import StudyConfig
from hilum.common.encoders import Encoder, build_encoder
from hilum.common.encoders.base import initialise
from hilum.common.progress import NullProgress, Progress
from hilum.common.results_table import Evaluation, RowNote, combinations
from hilum.common.seeding import derive
from hilum.common.weights import NamedWeights


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
        DataError: If the site's labels do not serve the task.
    """
    task = open_task(data, study)
    evaluation = study.evaluation
    measured = Measurements(
        data.name, task, data.split.group[task.test], evaluation.bootstrap_draws, study.study.seed
    )
    runner = Runner(task, data, study, encoders, fabric, steps or NullProgress())
    for done, (protocol, share, arm) in enumerate(combinations(evaluation, encoders), 1):
        predicted, note = runner.predict(protocol, arm, task.training_rows(share))
        measured.add(protocol, share, arm, predicted, note)
        progress.advance(done, f"{arm} {protocol} {share:.0%}")
    return measured.table()


def combinations_count(study: StudyConfig, encoders: Mapping[str, NamedWeights]) -> int:
    """Return how many times `evaluate_site` advances its progress."""
    return len(list(combinations(study.evaluation, encoders)))


def note_of(tuned: Finetuned, study: StudyConfig) -> RowNote:
    """Say where the study wanted validation patients and a fine-tuning had none."""
    return "no_validation" if study.evaluation.validation_share > 0 and not tuned.validated else ""


class Runner:
    """Predictions of one site's test images; features of an arm are computed once.

    Args:
        task: The task.
        data: The site's images and labels.
        study: The study.
        encoders: Weights by arm; an arm without any has random ones.
        fabric: The device.
        steps: Told after each step of a fine-tuning.
    """

    def __init__(
        self,
        task: Task,
        data: SiteData,
        study: StudyConfig,
        encoders: Mapping[str, NamedWeights],
        fabric: Fabric,
        steps: Progress,
    ) -> None:
        self.task, self.data, self.study = task, data, study
        self.encoders, self.fabric, self.steps = encoders, fabric, steps
        self.features: dict[str, Features] = {}

    def predict(self, protocol: str, arm: str, train: Rows) -> tuple[Predictions, RowNote]:
        """Return predictions (M, ...) of the test rows, and what is the matter with them."""
        mode = next((one for one in MODES if one == protocol), None)
        if mode is not None:
            predicted, tuned = self.tune(mode, arm, train)
            return predicted, note_of(tuned, self.study)
        table = self._features(arm)
        by = self.task.predict_by_neighbours if protocol == "knn" else self.task.predict_by_probe
        return by(table[train], train, table[self.task.test]), ""

    def tune(self, mode: Mode, arm: str, train: Rows) -> tuple[Predictions, Finetuned]:
        """Fine-tune an arm's encoder, and return the predictions (M, ...) and the model."""
        encoder = encoder_from(self.study, self.encoders.get(arm))
        return predict_by_finetuning(
            self.task,
            encoder,
            self.data.images,
            train,
            self.study,
            self.fabric,
            self.steps,
            mode,
            pretrained=arm != "scratch",
        )

    def _features(self, arm: str) -> Features:
        if arm not in self.features:
            images, rows = self.data.images, np.arange(len(self.data.images))
            if arm == "raw":
                self.features[arm] = pixel_features(images, rows, self.study)
            else:
                encoder = encoder_from(self.study, self.encoders.get(arm))
                self.features[arm] = encoder_features(encoder, images, rows, self.study, self.fabric)
        return self.features[arm]
