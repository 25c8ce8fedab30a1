"""Classification of whole images: one column of the label table, two classes or more.

Shapes: N prepared images, M test images, n training images, K classes, E features.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split, labelled_share
from hilum.client.tasks.base import Criterion, Features, Interval, Rows, Scored
from hilum.client.tasks.calibration import fit_temperature
from hilum.client.tasks.class_metrics import MEASURES
from hilum.client.tasks.finetuning import PooledLinear
from hilum.client.tasks.probe import fit_probe
from hilum.client.tasks.small_samples import (
    MIN_CLASS_PATIENTS,
    patients_by_class,
    widened,
    widened_difference,
)
from hilum.client.tasks.validation import validation_rows
from hilum.common.config import StudyConfig
from hilum.common.config.tasks import TaskSection
from hilum.common.encoders import Encoder
from hilum.common.errors import DataError
from hilum.common.results_table import RowNote

Probabilities = npt.NDArray[np.float64]
_MIN_TEST_CLASSES = 2
_NAMES_SHOWN = 8
_ALIKE = 1e-6  # scores that differ by less rank nothing


class Classification:
    """The task of one site. Unless the study says otherwise, classes weigh the same in every loss, however many images they have.

    Args:
        labels: The class of each of N images, None where there is none.
        split: Who is trained on and who is tested.
        study: The study.
        section: The study's section.
        names: Of the classes, in the order of the outputs; those of the labels, if none are given.
    """

    def __init__(
        self,
        labels: Sequence[str | None],
        split: Split,
        study: StudyConfig,
        section: TaskSection,
        names: Sequence[str] = (),
    ) -> None:
        self.section = section
        self.test = split.test
        self.names = tuple(names) or tuple(sorted({label for label in labels if label is not None}))
        number = {name: index for index, name in enumerate(self.names)}
        self.classes = np.array([-1 if label is None else number[label] for label in labels], np.int64)
        self.count = len(self.names)
        self._labels, self._split = labels, split
        self._seed, self._evaluation = study.study.seed, study.evaluation
        self.strata = self.classes[self.test]
        by_class = patients_by_class(split.group[self.test], self.strata, self.count)
        self._by_class = tuple(count for count in by_class if count)
        self._all_classes = all(by_class)

    @classmethod
    def of(cls, data: SiteData, study: StudyConfig, names: Sequence[str] = ()) -> "Classification":
        """Open the task at a site.

        Args:
            data: The site's.
            study: The study.
            names: Of the classes that a model knows; those of the site's labels, if none are given.

        Raises:
            DataError: If the site's test patients do not have two classes, or one that is not among the names.
        """
        assert study.tasks.classification is not None, "the study names it"
        tested = len({data.labels[row] for row in data.split.test})
        if tested < _MIN_TEST_CLASSES:
            raise DataError(
                f"{data.name}: the test patients have {tested} class(es), two are needed; "
                "add labelled patients of another class"
            )
        unknown = sorted({label for label in data.labels if label is not None} - set(names))
        if names and unknown:
            raise DataError(
                f"{data.name}: the label table has {_listed(unknown)}, which the model does not know; it tells apart "
                f"{_listed(names)}: correct the table, or fine-tune a model with all classes"
            )
        return cls(data.labels, data.split, study, study.tasks.classification, names)

    def training_rows(self, share: float) -> Rows:
        """See `Task`."""
        return labelled_share(self._split, self._labels, share, seed=self._seed)

    def head(self, encoder: Encoder) -> nn.Module:
        """Return a linear layer on the pooled features, K outputs."""
        return PooledLinear(encoder, self.count)

    def criterion(self, train: Rows, device: torch.device) -> Criterion:
        """Return the cross entropy, every class weighing the same; classes without an image weigh nothing.

        With `evaluation.class_weights = "none"` every image weighs the same.
        """
        weight = None
        if self._evaluation.class_weights == "balanced":
            counts = np.bincount(self.classes[train], minlength=self.count).astype(np.float32)
            present = counts > 0
            weights = np.zeros(self.count, np.float32)
            weights[present] = len(train) / (present.sum() * counts[present])
            weight = torch.from_numpy(weights).to(device)

        def loss(outputs: Tensor, rows: Rows) -> Tensor:
            return F.cross_entropy(outputs, torch.from_numpy(self.classes[rows]).to(device), weight=weight)

        return loss

    def validation_rows(self, train: Rows) -> Rows:
        """Return rows of a share of the patients of each class."""
        share, group = self._evaluation.validation_share, self._split.group[train]
        return validation_rows(train, self.classes[train], group, share, seed=self._seed)

    def predictions(self, outputs: Tensor) -> Probabilities:
        """Return the probability of each class, (m, K)."""
        return probabilities(outputs)

    def temperature(self, outputs: Tensor, rows: Rows) -> float:
        """Return the temperature of the classes' probabilities."""
        return fit_temperature(outputs.cpu().double().numpy(), self.classes[rows])

    def predict_by_neighbours(self, features: Features, train: Rows, test: Features) -> Probabilities:
        """Return (M, K) by the k nearest training images in cosine distance, nearer ones counting more.

        Features are centred by those of the training images: what all images share says nothing of how near two are.
        """
        centre = features.mean(0)
        model = KNeighborsClassifier(
            min(self._evaluation.knn_k, len(train)), weights="distance", metric="cosine"
        )
        model.fit(features - centre, self.classes[train])
        return self._all(model.predict_proba(test - centre), model.classes_)

    def predict_by_probe(self, features: Features, train: Rows, test: Features) -> Probabilities:
        """Return (M, K) by a logistic regression on standardised features; see `fit_probe`."""
        scaler = StandardScaler().fit(features.astype(np.float64))
        scaled = scaler.transform(features.astype(np.float64))
        model = fit_probe(scaled, self.classes[train], self._split.group[train])
        return self._all(model.predict_proba(scaler.transform(test.astype(np.float64))), model.classes_)

    def scores(self, predicted: Probabilities, weights: npt.NDArray[np.float64]) -> dict[str, Scored]:
        """See `Task`. What takes every image for one class is told, and a prediction that ranks nothing is not compared."""
        one_class = len(np.unique(predicted.argmax(1))) == 1
        ranked = bool(np.ptp(predicted, axis=0).max() > _ALIKE)
        note = self._note(one_class=one_class)
        return {
            # A ranking may be right though every image is taken for one class.
            metric: Scored(
                measure(predicted, self.strata, weights), note, ranked if metric == "auroc" else not one_class
            )
            for metric, measure in MEASURES.items()
        }

    def widened(self, metric: str, known: Interval) -> Interval:
        """See `Task`."""
        return widened(metric, known, self._by_class)

    def widened_difference(self, metric: str, known: Interval) -> Interval | None:
        """See `Task`."""
        del metric
        return widened_difference(known, self._by_class) if self._enough else None

    @property
    def _enough(self) -> bool:
        return min(self._by_class) >= MIN_CLASS_PATIENTS

    def _note(self, *, one_class: bool) -> RowNote:
        if one_class:
            return "one_class"
        if not self._enough:
            return "too_few"
        return "" if self._all_classes else "untested_classes"

    def _all(self, found: Probabilities, classes: Rows) -> Probabilities:
        """Spread probabilities of the classes that were trained on over all classes."""
        spread = np.zeros((len(found), self.count))
        spread[:, classes] = found
        return spread


def probabilities(outputs: Tensor) -> Probabilities:
    """Return the probability of each class, (m, K), from outputs of the same shape."""
    return outputs.detach().cpu().double().softmax(1).numpy()


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown
