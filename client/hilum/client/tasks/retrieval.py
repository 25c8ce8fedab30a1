"""Retrieval: of the images that a site trains on, those that are most like a test image, by the encoder's features alone.

Shapes: M test images, n training images, E features, R bootstrap draws and one.

An image is found rightly if it has the test image's class. A prediction is (average precision, precision at k) of each test
image, for nothing else of a ranking is measured; NaN where no training image has its class.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import labelled_share
from hilum.client.tasks.base import Criterion, Features, Interval, Rows, Scored
from hilum.client.tasks.number_metrics import mean_of
from hilum.client.tasks.small_samples import (
    MIN_CLASS_PATIENTS,
    patients_by_class,
    widened,
    widened_difference,
)
from hilum.common.config import StudyConfig
from hilum.common.config.tasks import RetrievalTask, TaskSection
from hilum.common.encoders import Encoder
from hilum.common.errors import DataError
from hilum.common.results_table import RowNote

Values = npt.NDArray[np.float64]
_MIN_CLASSES = 2
_NO_PROTOCOL = "retrieval is measured by neighbours alone: the study's check lets no other protocol through"


class Retrieval:
    """The task of one site.

    Args:
        data: The site's rows, with this task's labels.
        study: The study.
        section: The study's section.

    Raises:
        DataError: If the test patients have no two classes, or no labelled image is trained on.
    """

    def __init__(self, data: SiteData, study: StudyConfig, section: RetrievalTask) -> None:
        self.section: TaskSection = section
        self.test, self._k = data.split.test, section.k
        names = sorted({label for label in data.labels if label is not None})
        self.names = tuple(names)
        number = {name: index for index, name in enumerate(names)}
        self.classes = np.array([-1 if label is None else number[label] for label in data.labels], np.int64)
        self.strata = self.classes[self.test]
        if len(np.unique(self.strata)) < _MIN_CLASSES or not len(data.split.train):
            raise DataError(
                f"{data.name}: retrieval needs test patients of two classes in `{section.label}` and a labelled image that is "
                "trained on; add labelled patients"
            )
        self._labels, self._split, self._seed = data.labels, data.split, study.study.seed
        by_class = patients_by_class(data.split.group[self.test], self.strata, len(names))
        self._by_class = tuple(count for count in by_class if count)
        self._all_classes = all(by_class)

    @classmethod
    def of(cls, data: SiteData, study: StudyConfig) -> "Retrieval":
        """Open the task at a site; errors as of the class."""
        assert study.tasks.retrieval is not None, "the study names it"
        return cls(data, study, study.tasks.retrieval)

    def training_rows(self, share: float) -> Rows:
        """See `Task`."""
        return labelled_share(self._split, self._labels, share, seed=self._seed)

    def head(self, encoder: Encoder) -> nn.Module:
        """Refuse: nothing is trained."""
        raise NotImplementedError(_NO_PROTOCOL)

    def criterion(self, train: Rows, device: torch.device) -> Criterion:
        """Refuse: nothing is trained."""
        raise NotImplementedError(_NO_PROTOCOL)

    def validation_rows(self, train: Rows) -> Rows:
        """Refuse: nothing is trained."""
        raise NotImplementedError(_NO_PROTOCOL)

    def predictions(self, outputs: Tensor) -> Values:
        """Refuse: nothing is trained."""
        raise NotImplementedError(_NO_PROTOCOL)

    def temperature(self, outputs: Tensor, rows: Rows) -> None:
        """Refuse: nothing is trained."""
        raise NotImplementedError(_NO_PROTOCOL)

    def predict_by_probe(self, features: Features, train: Rows, test: Features) -> Values:
        """Refuse: nothing is trained."""
        raise NotImplementedError(_NO_PROTOCOL)

    def predict_by_neighbours(self, features: Features, train: Rows, test: Features) -> Values:
        """Rank the training images by cosine similarity, and return how well each test image finds its class, (M, 2).

        Features are centred by those of the training images.
        """
        centre = features.mean(0)
        known, asked = _unit(features - centre), _unit(test - centre)
        order = np.argsort(-(asked @ known.T), axis=1, kind="stable")
        right = self.classes[train][order] == self.strata[:, None]
        return np.stack([average_precision(right), precision_at(right, self._k)], 1)

    def scores(self, predicted: Values, weights: npt.NDArray[np.float64]) -> dict[str, Scored]:
        """Return the means over test images. One whose class no training image has finds nothing, so it counts as 0."""
        note: RowNote = "" if self._all_classes else "untested_classes"
        if min(self._by_class) < MIN_CLASS_PATIENTS:
            note = "too_few"
        found = np.nan_to_num(predicted)
        return {
            name: Scored(mean_of(found[:, place], weights), note)
            for place, name in enumerate(("map", "precision_at_k"))
        }

    def widened(self, metric: str, known: Interval) -> Interval:
        """See `Task`."""
        return widened(metric, known, self._by_class)

    def widened_difference(self, metric: str, known: Interval) -> Interval | None:
        """See `Task`."""
        del metric
        few = min(self._by_class) < MIN_CLASS_PATIENTS
        return None if few else widened_difference(known, self._by_class)


def average_precision(right: npt.NDArray[np.bool_]) -> Values:
    """Return the mean precision at the place of each right one, (M,) of (M, n) rankings; NaN where none is right."""
    precision = np.cumsum(right, 1) / np.arange(1, right.shape[1] + 1)
    count = right.sum(1)
    found: Values = np.divide(
        (precision * right).sum(1), count, out=np.full(len(right), np.nan), where=count > 0
    )
    return found


def precision_at(right: npt.NDArray[np.bool_], k: int) -> Values:
    """Return the share of right ones among the first k, or all where there are fewer, (M,) of (M, n) rankings."""
    found: Values = right[:, :k].mean(1)
    return found


def _unit(features: Features) -> Values:
    some = features.astype(np.float64)
    length = np.linalg.norm(some, axis=1, keepdims=True)
    unit: Values = np.divide(some, length, out=np.zeros_like(some), where=length > 0)
    return unit
