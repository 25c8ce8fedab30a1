"""Predictions of a site's test images, as rows with intervals and paired comparisons.

Shapes: R bootstrap draws and one, M test images.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hilum.client.evaluation.bootstrap import interval, patient_draws
from hilum.client.tasks.base import Predictions, Scored, Task
from hilum.common.results_table import Comparison, Evaluation, Row, RowNote


class Measurements:
    """Take each arm's predictions, and give the site's table.

    Args:
        site: Its name.
        task: Measures predictions.
        group: (M,) the patient number of each test image.
        draws: How many resamples of patients.
        seed: The study's.
        ours: Protocol and arm that every other line is compared with; of a study, the federated arm by the same protocol.
    """

    def __init__(
        self,
        site: str,
        task: Task,
        group: npt.NDArray[np.int64],
        draws: int,
        seed: int,
        ours: tuple[str, str] | None = None,
    ) -> None:
        self._site, self._task, self._ours = site, task, ours
        self._draws = patient_draws(group, task.strata, draws, seed=seed, site=site)
        self._patients = len(np.unique(group))
        self._found: dict[tuple[str, float, str, str], Scored] = {}

    def add(self, protocol: str, share: float, arm: str, predicted: Predictions, note: RowNote = "") -> None:
        """Measure one arm's predictions; `note` says what is the matter with them, where nothing weightier is."""
        for metric, scored in self._task.scores(predicted, self._draws).items():
            self._found[protocol, share, arm, metric] = replace(scored, note=scored.note or note)

    def table(self) -> Evaluation:
        """Return a row for each arm and metric, and the comparisons that say something."""
        return Evaluation(self._rows(), self._comparisons())

    def _rows(self) -> tuple[Row, ...]:
        rows, kind = [], self._task.section.kind
        for (protocol, share, arm, metric), scored in self._found.items():
            known = self._task.widened(metric, interval(scored.draws))
            numbers = (known.value, known.low, known.high, self._patients)
            rows.append(Row(self._site, kind, protocol, share, arm, metric, *numbers, scored.note))
        return tuple(rows)

    def _comparisons(self) -> tuple[Comparison, ...]:
        """Federated minus each other arm; fine-tuned, the untrained rival is `scratch`."""
        compared: list[Comparison] = []
        kind = self._task.section.kind
        for (protocol, share, arm, metric), theirs in self._found.items():
            how, whose = self._ours or (protocol, "federated")
            ours = self._found.get((how, share, whose, metric))
            if ours is None or ours is theirs or not (ours.comparable and theirs.comparable):
                continue
            known = self._task.widened_difference(metric, interval(ours.draws - theirs.draws))
            if known is not None:
                numbers = (known.value, known.low, known.high)
                compared.append(Comparison(self._site, kind, protocol, share, arm, metric, *numbers))
        return tuple(compared)
