"""Multi-label classification: which of several findings an image shows, each by itself.

Shapes: N prepared images, M test images, n training images, K findings, E features, R bootstrap draws and one.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import labelled_share
from hilum.client.state.findings import findings_of
from hilum.client.tasks.base import Criterion, Features, Interval, Rows, Scored
from hilum.client.tasks.class_metrics import auroc
from hilum.client.tasks.finetuning import PooledLinear
from hilum.client.tasks.probe import fit_probe
from hilum.client.tasks.small_samples import MIN_CLASS_PATIENTS, widened, widened_difference
from hilum.client.tasks.validation import validation_rows
from hilum.common.config import StudyConfig
from hilum.common.config.tasks import MultilabelTask, TaskSection
from hilum.common.encoders import Encoder
from hilum.common.errors import DataError
from hilum.common.results_table import RowNote

Probabilities = npt.NDArray[np.float64]
_MAX_WEIGHT = (
    100.0  # of a finding's images against the others': one image in a thousand must not be all that counts
)
_ALIKE = 1e-6  # scores that differ by less rank nothing


class Multilabel:
    """The task of one site.

    Args:
        data: The site's rows, with this task's labels.
        study: The study.
        section: The study's section.

    Raises:
        DataError: If no finding has test patients with it and without it, or no labelled image is trained on.
    """

    def __init__(self, data: SiteData, study: StudyConfig, section: MultilabelTask) -> None:
        self.section: TaskSection = section
        self.test, self._split = data.split.test, data.split
        shown = [None if one is None else findings_of(one, section.nothing) for one in data.labels]
        self.names = tuple(sorted({name for one in shown for name in one or ()}))
        self.truth = np.array([[name in (one or ()) for name in self.names] for one in shown], np.int64)
        self.truth = self.truth.reshape(len(shown), len(self.names))
        self.strata = np.zeros(len(self.test), np.int64)
        self._labelled = tuple(None if one is None else "" for one in data.labels)
        self._seed, self._evaluation = study.study.seed, study.evaluation
        group = data.split.group[self.test]
        counts = tested_patients(self.truth[self.test], group)
        enough = [place for place, one in enumerate(counts) if min(one) >= MIN_CLASS_PATIENTS]
        self.tested = enough or [place for place, one in enumerate(counts) if min(one) > 0]
        if not self.tested or not len(data.split.train):
            raise DataError(
                f"{data.name}: no finding in `{section.label}` has test patients with it and without it, or nobody with a label is "
                "trained on; add labelled patients"
            )
        self._counts, self._enough = [counts[place] for place in self.tested], bool(enough)

    @classmethod
    def of(cls, data: SiteData, study: StudyConfig) -> "Multilabel":
        """Open the task at a site; errors as of the class."""
        assert study.tasks.multilabel is not None, "the study names it"
        return cls(data, study, study.tasks.multilabel)

    def training_rows(self, share: float) -> Rows:
        """See `Task`. A small share may lack a rare finding."""
        return labelled_share(self._split, self._labelled, share, seed=self._seed)

    def head(self, encoder: Encoder) -> nn.Module:
        """Return a linear layer on the pooled features, K outputs."""
        return PooledLinear(encoder, len(self.names))

    def criterion(self, train: Rows, device: torch.device) -> Criterion:
        """Return the binary cross entropy, of each finding both kinds weighing the same; one of a single kind weighs nothing."""
        share = self.truth[train].mean(0)
        both = (share > 0) & (share < 1)
        positive = np.divide(1 - share, share, out=np.ones_like(share), where=both)
        weight = torch.from_numpy(np.minimum(positive, _MAX_WEIGHT)).float().to(device)
        used = torch.from_numpy(both / max(1, both.sum())).float().to(device)

        def loss(outputs: Tensor, rows: Rows) -> Tensor:
            wanted = torch.from_numpy(self.truth[rows]).float().to(device)
            each = F.binary_cross_entropy_with_logits(outputs, wanted, pos_weight=weight, reduction="none")
            return (each.mean(0) * used).sum()

        return loss

    def validation_rows(self, train: Rows) -> Rows:
        """Return rows of a share of the patients."""
        group, share = self._split.group[train], self._evaluation.validation_share
        return validation_rows(train, np.zeros_like(train), group, share, seed=self._seed)

    def predictions(self, outputs: Tensor) -> Probabilities:
        """Return the probability of each finding, (m, K)."""
        return outputs.cpu().double().sigmoid().numpy()

    def temperature(self, outputs: Tensor, rows: Rows) -> None:
        """Return none: findings are ranked, not calibrated."""

    def predict_by_neighbours(self, features: Features, train: Rows, test: Features) -> Probabilities:
        """Return (M, K): the share with each finding of the k nearest training images in cosine distance, nearer ones counting more.

        Features are centred by those of the training images.
        """
        centre = features.mean(0)
        k = min(self._evaluation.knn_k, len(train))
        model = KNeighborsRegressor(k, weights="distance", metric="cosine")
        found = model.fit(features - centre, self.truth[train].astype(np.float64)).predict(test - centre)
        shaped: Probabilities = found.reshape(len(test), len(self.names))
        return shaped

    def predict_by_probe(self, features: Features, train: Rows, test: Features) -> Probabilities:
        """Return (M, K) by a logistic regression of each finding on standardised features; see `fit_probe`."""
        scaler = StandardScaler().fit(features.astype(np.float64))
        known, asked = (scaler.transform(some.astype(np.float64)) for some in (features, test))
        found = np.zeros((len(test), len(self.names)))
        for place in range(len(self.names)):
            truth = self.truth[train, place]
            if len(np.unique(truth)) == 1:
                found[:, place] = truth[0]
            else:
                found[:, place] = fit_probe(known, truth, self._split.group[train]).predict_proba(asked)[:, 1]
        return found

    def scores(self, predicted: Probabilities, weights: npt.NDArray[np.float64]) -> dict[str, Scored]:
        """Return the mean AUROC over the findings that are tested; comparable if one of them is ranked at all."""
        areas = [
            auroc(
                np.stack([1 - predicted[:, place], predicted[:, place]], 1),
                self.truth[self.test, place],
                weights,
            )
            for place in self.tested
        ]
        ranked = bool(np.ptp(predicted[:, self.tested], axis=0).max() > _ALIKE)
        note: RowNote = "" if len(self.tested) == len(self.names) else "untested_classes"
        if not self._enough:
            note = "too_few"
        mean: Probabilities = np.mean(areas, axis=0)
        return {"mean_auroc": Scored(mean, note, ranked)}

    def widened(self, metric: str, known: Interval) -> Interval:
        """See `Task`: the mean over findings of the interval that each's numbers of patients give, or wider."""
        del metric
        several = [widened("auroc", known, one) for one in self._counts]
        low, high = (float(np.mean([getattr(one, end) for one in several])) for end in ("low", "high"))
        return Interval(known.value, low, high)

    def widened_difference(self, metric: str, known: Interval) -> Interval | None:
        """See `Task`."""
        del metric
        return widened_difference(known, [min(one) for one in self._counts]) if self._enough else None


def tested_patients(truth: Rows, group: Rows) -> list[tuple[int, int]]:
    """Return of each finding how many patients have an image without it, and one with it.

    Args:
        truth: (M, K), 1 where an image shows a finding.
        group: (M,) patient numbers.
    """
    patients: Sequence[Sequence[int]] = [
        [len(np.unique(group[truth[:, place] == shows])) for shows in (0, 1)]
        for place in range(truth.shape[1])
    ]
    return [(without, with_it) for without, with_it in patients]
