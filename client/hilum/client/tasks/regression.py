"""Regression of whole images: a number in one column of the label table, with an interval around what is predicted.

Shapes: N prepared images, M test images, n training images, E features, R bootstrap draws and one.

A prediction is (value, low, high); the ends are NaN where too few training patients could be held out for an interval, and of
fine-tuned models, whose held-out patients have chosen when to stop.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor, nn

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import labelled_share
from hilum.client.tasks.base import Criterion, Features, Interval, Rows, Scored
from hilum.client.tasks.conformal import half_width, held_out
from hilum.client.tasks.finetuning import PooledLinear
from hilum.client.tasks.number_metrics import mean_of, r2, spearman
from hilum.client.tasks.ridge import fit_ridge
from hilum.client.tasks.validation import validation_rows
from hilum.common.config import StudyConfig
from hilum.common.config.tasks import MAX_NUMBER, RegressionTask, TaskSection
from hilum.common.encoders import Encoder
from hilum.common.errors import DataError
from hilum.common.results_table import RowNote

MIN_PATIENTS = 10
"""Test patients that a comparison between arms takes."""

_ALIKE = 1e-9  # predictions that differ by less, in standard deviations of the labels, are one number

Values = npt.NDArray[np.float64]
_Fit = Callable[[Features, Rows], Callable[[Features], Values]]


class ScaledLinear(PooledLinear):
    """One number from the mean of the last feature map, in the label's unit; it begins at the mean of the training labels."""

    centre: Tensor
    scale: Tensor

    def __init__(self, encoder: Encoder, centre: float, scale: float) -> None:
        super().__init__(encoder, 1)
        self.register_buffer("centre", torch.tensor(centre))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, maps: list[Tensor]) -> Tensor:  # type: ignore[override]  # a head takes feature maps
        """Feature maps -> (B, 1)."""
        found: Tensor = super().forward(maps) * self.scale + self.centre
        return found


class Regression:
    """The task of one site.

    Args:
        data: The site's rows, with this task's labels.
        study: The study.
        section: The study's section.

    Raises:
        DataError: If no labelled image is trained on, or the tested ones have one number.
    """

    def __init__(self, data: SiteData, study: StudyConfig, section: RegressionTask) -> None:
        self.section: TaskSection = section
        self.names: tuple[str, ...] = (section.label,)
        self.test, self._coverage = data.split.test, section.coverage
        self.values = np.array([np.nan if one is None else float(one) for one in data.labels])
        self.strata = np.zeros(len(self.test), np.int64)
        trained = self.values[data.split.train]
        if not len(trained):
            raise DataError(f"{data.name}: no image with a number in `{section.label}` is trained on")
        if len(np.unique(self.values[self.test])) < 2:  # noqa: PLR2004 - a spread takes two
            raise DataError(
                f"{data.name}: the test patients have one number or none in `{section.label}`, two are needed; add labelled "
                "patients"
            )
        self._split, self._seed, self._k = data.split, study.study.seed, study.evaluation.knn_k
        self._validation_share = study.evaluation.validation_share
        self._labelled = tuple(None if one is None else "" for one in data.labels)
        self._centre, self._scale = float(trained.mean()), float(trained.std()) or 1.0
        self._enough = len(np.unique(data.split.group[self.test])) >= MIN_PATIENTS

    @classmethod
    def of(cls, data: SiteData, study: StudyConfig) -> "Regression":
        """Open the task at a site; errors as of the class."""
        assert study.tasks.regression is not None, "the study names it"
        return cls(data, study, study.tasks.regression)

    def training_rows(self, share: float) -> Rows:
        """See `Task`."""
        return labelled_share(self._split, self._labelled, share, seed=self._seed)

    def head(self, encoder: Encoder) -> nn.Module:
        """Return a linear layer on the pooled features, one output in the label's unit."""
        return ScaledLinear(encoder, self._centre, self._scale)

    def criterion(self, train: Rows, device: torch.device) -> Criterion:
        """Return the smooth L1 loss (Huber's, arXiv 1504.08083) in standard deviations of the training labels."""
        del train

        def loss(outputs: Tensor, rows: Rows) -> Tensor:
            wanted = torch.from_numpy(self.values[rows]).float().to(device)
            return F.smooth_l1_loss(outputs[:, 0] / self._scale, wanted / self._scale)

        return loss

    def validation_rows(self, train: Rows) -> Rows:
        """Return rows of a share of the patients."""
        group = self._split.group[train]
        return validation_rows(train, np.zeros_like(train), group, self._validation_share, seed=self._seed)

    def temperature(self, outputs: Tensor, rows: Rows) -> None:
        """Return none: a number is not calibrated."""

    def predictions(self, outputs: Tensor) -> Values:
        """Return (m, 3) of a model's outputs, without an interval."""
        found: Values = np.full((len(outputs), 3), np.nan)
        found[:, 0] = outputs[:, 0].cpu().double().numpy()
        return found

    def predict_by_neighbours(self, features: Features, train: Rows, test: Features) -> Values:
        """Return (M, 3): the mean of the k nearest training images in cosine distance, nearer ones counting more.

        Features are centred by those of the training images.
        """

        def fit(some: Features, rows: Rows) -> Callable[[Features], Values]:
            centre = some.mean(0)
            model = KNeighborsRegressor(min(self._k, len(rows)), weights="distance", metric="cosine")
            model.fit(some - centre, self.values[rows])
            return lambda others: model.predict(others - centre)

        return self._with_intervals(fit, features, train, test)

    def predict_by_probe(self, features: Features, train: Rows, test: Features) -> Values:
        """Return (M, 3) by a ridge regression on standardised features; see `fit_ridge`."""
        group = self._split.group
        return self._with_intervals(
            lambda some, rows: fit_ridge(some, self.values[rows], group[rows]), features, train, test
        )

    def scores(self, predicted: Values, weights: npt.NDArray[np.float64]) -> dict[str, Scored]:
        """See `Task`. Intervals are measured where there are any; what they hold is compared with no other arm's."""
        value, low, high = predicted.T
        truth = self.values[self.test]
        differ = bool(np.ptp(value) > _ALIKE * self._scale)
        note: RowNote = "" if self._enough else "too_few"
        if not differ:
            note = "one_number"
        found = {
            "r2": Scored(r2(value, truth, weights), note, differ),
            "spearman": Scored(spearman(value, truth, weights), note, differ),
            "mae": Scored(_told(mean_of(np.abs(value - truth), weights)), note, differ),
        }
        if np.isfinite(low).all():
            inside = ((low <= truth) & (truth <= high)).astype(np.float64)
            found["coverage"] = Scored(mean_of(inside, weights), note, comparable=False)
            found["interval_width"] = Scored(_told(mean_of(high - low, weights)), note, comparable=False)
        return found

    def widened(self, metric: str, known: Interval) -> Interval:
        """See `Task`: the bootstrap's."""
        del metric
        return known

    def widened_difference(self, metric: str, known: Interval) -> Interval | None:
        """See `Task`."""
        del metric
        return known if self._enough else None

    def _with_intervals(self, fit: _Fit, features: Features, train: Rows, test: Features) -> Values:
        """Predict by a fit on all training images, with an interval around what a fit without the held-out patients predicts.

        So no label is lost for the value, and the interval rests on patients that its fit never saw.
        """
        value = fit(features, train)(test)
        patients = self._split.group[train]
        aside = held_out(patients, self._coverage, seed=self._seed)
        if aside is None:
            return np.stack([value, np.full_like(value, np.nan), np.full_like(value, np.nan)], 1)
        predict = fit(features[~aside], train[~aside])
        residuals = np.abs(predict(features[aside]) - self.values[train[aside]])
        half = half_width(residuals, patients[aside], self._coverage)
        centre = predict(test)
        return np.stack([value, centre - half, centre + half], 1)


def _told(errors: Values) -> Values:
    """Return errors within what a table of results may hold: a linear model may go far beyond any number that it has seen."""
    bounded: Values = np.minimum(errors, MAX_NUMBER)
    return bounded
