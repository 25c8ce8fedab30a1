"""Predictions of a site's test images, as rows with intervals and paired comparisons.

Shapes: R bootstrap draws and one, N test images, K classes.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hilum.client.evaluation.bootstrap import interval, patient_draws
from hilum.client.evaluation.metrics import METRICS
from hilum.client.evaluation.small_samples import (
    MIN_CLASS_PATIENTS,
    patients_by_class,
    widened,
    widened_difference,
)
from hilum.common.results_table import TASK, Comparison, Evaluation, Row, RowNote

_ALIKE = 1e-6  # scores that differ by less rank nothing


@dataclass(frozen=True)
class _Measured:
    """A metric of an arm over all draws.

    Attributes:
        draws: (R,) the value itself, then that of each resample.
        one_class: Every test image was taken for one class.
        comparable: The number may be compared with another arm's.
    """

    draws: npt.NDArray[np.float64] = field(repr=False)
    one_class: bool
    comparable: bool


class Measurements:
    """Take each arm's predictions, and give the site's table.

    Args:
        site: Its name.
        group: (N,) the patient number of each test image.
        truth: (N,) class numbers.
        classes: K, those without a test patient among them.
        draws: How many resamples of patients.
        seed: The study's.
    """

    def __init__(
        self,
        site: str,
        group: npt.NDArray[np.int64],
        truth: npt.NDArray[np.int64],
        classes: int,
        draws: int,
        seed: int,
    ) -> None:
        self._site, self._truth = site, truth
        self._draws = patient_draws(group, truth, draws, seed=seed, site=site)
        self._patients = len(np.unique(group))
        counts = patients_by_class(group, truth, classes)
        self._by_class = tuple(count for count in counts if count)
        self._all_classes = all(counts)
        self._enough = min(self._by_class) >= MIN_CLASS_PATIENTS
        self._found: dict[tuple[str, float, str, str], _Measured] = {}

    def add(self, protocol: str, share: float, arm: str, predicted: npt.NDArray[np.float64]) -> None:
        """Measure (N, K) class probabilities."""
        one_class = len(np.unique(predicted.argmax(1))) == 1
        ranked = np.ptp(predicted, axis=0).max() > _ALIKE
        for metric, measure in METRICS.items():
            # A ranking may be right though every image is taken for one class.
            comparable = bool(ranked) if metric == "auroc" else not one_class
            draws = measure(predicted, self._truth, self._draws)
            self._found[protocol, share, arm, metric] = _Measured(draws, one_class, comparable)

    def table(self) -> Evaluation:
        """Return a row for each arm and metric, and the comparisons that say something."""
        return Evaluation(self._rows(), self._comparisons())

    def _rows(self) -> tuple[Row, ...]:
        rows = []
        for (protocol, share, arm, metric), measured in self._found.items():
            known = widened(metric, interval(measured.draws), self._by_class)
            numbers = (known.value, known.low, known.high, self._patients)
            rows.append(Row(self._site, TASK, protocol, share, arm, metric, *numbers, self._note(measured)))
        return tuple(rows)

    def _note(self, measured: _Measured) -> RowNote:
        if measured.one_class:
            return "one_class"
        if not self._enough:
            return "too_few"
        return "" if self._all_classes else "untested_classes"

    def _comparisons(self) -> tuple[Comparison, ...]:
        """Federated minus each other arm; fine-tuned, the untrained rival is `scratch`."""
        compared: list[Comparison] = []
        for (protocol, share, arm, metric), theirs in self._found.items():
            ours = self._found.get((protocol, share, "federated", metric))
            if ours is None or arm == "federated" or not self._enough:
                continue
            if ours.comparable and theirs.comparable:
                known = widened_difference(interval(ours.draws - theirs.draws), self._by_class)
                numbers = (known.value, known.low, known.high)
                compared.append(Comparison(self._site, TASK, protocol, share, arm, metric, *numbers))
        return tuple(compared)
