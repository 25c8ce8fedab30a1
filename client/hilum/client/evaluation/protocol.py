"""The standard protocol: every arm, every protocol, every share of the labels, on the same test patients; task by task.

Arms with an encoder are measured by every protocol; `random` by all but full fine-tuning (fine-tuned, it is `scratch`);
`raw` pixels by neighbours and probe.
"""

import logging
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
from hilum.common.errors import DataError
from hilum.common.progress import NullProgress, Progress
from hilum.common.results_table import Comparison, Evaluation, Row, RowNote, combinations
from hilum.common.seeding import derive
from hilum.common.weights import NamedWeights

_log = logging.getLogger(__name__)


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
    *,
    min_patients: int = 1,
) -> Evaluation:
    """Measure every arm at one site, for each of the study's tasks that the site's labels serve.

    Of several tasks, one that they do not serve is left out, and the log says why.

    Args:
        data: The site's images, labels and split.
        study: Which arms, protocols and label fractions.
        encoders: Weights by arm; `scratch`, `random` and `raw` need none, and an arm without weights is left out.
        fabric: The device.
        progress: Told after each combination.
        steps: Told after each step of a fine-tuning.
        min_patients: A task with fewer test patients is left out.

    Raises:
        DataError: If the site's labels serve none of the tasks.
    """
    evaluation, runner = study.evaluation, Runner(data, study, encoders, fabric, steps or NullProgress())
    rows: list[Row] = []
    comparisons: list[Comparison] = []
    done = 0
    tasks = _served(data, study, min_patients)
    for task in tasks:
        measured = Measurements(
            data.name, task, data.split.group[task.test], evaluation.bootstrap_draws, study.study.seed
        )
        for protocol, share, arm in combinations(evaluation, encoders, task.section):
            predicted, note = runner.predict(task, protocol, arm, task.training_rows(share))
            measured.add(protocol, share, arm, predicted, note)
            done += 1
            of_task = f"{task.section.kind}, " if len(tasks) > 1 else ""
            progress.advance(done, f"{of_task}{arm} {protocol} {share:.0%}")
        table = measured.table()
        rows += table.rows
        comparisons += table.comparisons
    return Evaluation(tuple(rows), tuple(comparisons))


def combinations_count(study: StudyConfig, encoders: Mapping[str, NamedWeights]) -> int:
    """Return how many times `evaluate_site` advances its progress, where the site's labels serve every task."""
    return sum(len(list(combinations(study.evaluation, encoders, task))) for task in study.tasks.given)


def _served(data: SiteData, study: StudyConfig, min_patients: int) -> list[Task]:
    """Open the tasks that a site's labels serve.

    Raises:
        DataError: As the first of them, if they serve none.
    """
    tasks: list[Task] = []
    refused: list[DataError] = []
    for section in study.tasks.given:
        tested = data.of_task(section.kind).test_patients
        try:
            if tested >= min_patients:
                tasks.append(open_task(data, study, section.kind))
                continue
            why = DataError(f"{data.name}: {tested} patients would be tested, {min_patients} are needed")
        except DataError as unfit:
            why = unfit
        refused.append(why)
        if len(study.tasks.given) > 1:
            _log.warning("the task %s is not measured: %s", section.kind, why)
    if not tasks and refused:
        raise refused[0]
    return tasks


def note_of(tuned: Finetuned, study: StudyConfig) -> RowNote:
    """Say where the study wanted validation patients and a fine-tuning had none."""
    return "no_validation" if study.evaluation.validation_share > 0 and not tuned.validated else ""


class Runner:
    """Predictions of one site's test images; features of an arm are computed once, whatever the task.

    Args:
        data: The site's images and labels.
        study: The study.
        encoders: Weights by arm; an arm without any has random ones.
        fabric: The device.
        steps: Told after each step of a fine-tuning.
    """

    def __init__(
        self,
        data: SiteData,
        study: StudyConfig,
        encoders: Mapping[str, NamedWeights],
        fabric: Fabric,
        steps: Progress,
    ) -> None:
        self.data, self.study = data, study
        self.encoders, self.fabric, self.steps = encoders, fabric, steps
        self.features: dict[str, Features] = {}

    def predict(self, task: Task, protocol: str, arm: str, train: Rows) -> tuple[Predictions, RowNote]:
        """Return predictions (M, ...) of a task's test rows, and what is the matter with them."""
        mode = next((one for one in MODES if one == protocol), None)
        if mode is not None:
            predicted, tuned = self.tune(task, mode, arm, train)
            return predicted, note_of(tuned, self.study)
        table = self._features(arm)
        by = task.predict_by_neighbours if protocol == "knn" else task.predict_by_probe
        return by(table[train], train, table[task.test]), ""

    def tune(self, task: Task, mode: Mode, arm: str, train: Rows) -> tuple[Predictions, Finetuned]:
        """Fine-tune an arm's encoder, and return the predictions (M, ...) and the model."""
        encoder = encoder_from(self.study, self.encoders.get(arm))
        return predict_by_finetuning(
            task,
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
