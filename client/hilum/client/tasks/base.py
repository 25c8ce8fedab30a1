"""What a task is to the rest of Hilum.

Shapes: N prepared images, M test images, n training images, h of them held out, R bootstrap draws and one, E features.

A task predicts something of a whole image, from a column of the label table, or of its pixels, from masks (`DenseTask`). It
knows its labels, its head on the encoder's feature maps, its loss, and how predictions are measured. The standard protocol (`hilum.client.evaluation.protocol`) asks it for
all of that, and knows no task by name.

Adding one takes a file here with its line in `registry`, its section in `hilum.common.config.tasks`, and what its absence stood for in
studies of before, in `hilum.common.config.resume`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hilum.client.views import Viewer
from hilum.common.config.tasks import TaskSection
from hilum.common.encoders import Encoder
from hilum.common.results_table import RowNote

Rows = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]
Predictions = npt.NDArray[Any]
Criterion = Callable[[Tensor, Any], Tensor]
"""Gives the mean loss of a model's outputs for some training rows; of a dense task, for the targets that lie on their views."""


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scored:
    """A metric of one arm over all draws.

    Attributes:
        draws: (R,) the value itself, then that of each resample of patients.
        note: What is the matter with the number, if anything.
        comparable: The number may be compared with another arm's.
    """

    draws: npt.NDArray[np.float64] = field(repr=False)
    note: RowNote = ""
    comparable: bool = True


class Task(Protocol):
    """One task at one site for one study.

    Attributes:
        section: The study's section: its name, and its metrics with their ranges.
        test: (M,) the rows that are tested.
        strata: (M,) numbers; patients are drawn among those of the same ones.
        names: Of a model's outputs, in their order, such as of classes.
    """

    section: TaskSection
    test: Rows
    strata: Rows
    names: tuple[str, ...]

    def training_rows(self, share: float) -> Rows:
        """Return the rows (n,) of a share of the labelled training patients; smaller shares are parts of larger ones."""

    def head(self, encoder: Encoder) -> nn.Module:
        """Return a head, its first values fixed, that maps a list to outputs: the images, then the encoder's feature maps."""

    def criterion(self, train: Rows, device: torch.device) -> Criterion:
        """Return the loss of fine-tuning on these rows."""

    def validation_rows(self, train: Rows) -> Rows:
        """Return the rows (h,) of training patients that fine-tuning holds out to choose when to stop; none if too few."""

    def predictions(self, outputs: Tensor) -> Predictions:
        """Return predictions (m, ...) from a model's outputs for m images."""

    def temperature(self, outputs: Tensor, rows: Rows) -> float | None:
        """Return what to divide outputs by, from those (h, ...) of rows that were held out; None for a task without one."""

    def predict_by_neighbours(self, features: Features, train: Rows, test: Features) -> Predictions:
        """Return predictions (M, ...) from the nearest training images.

        Args:
            features: (n, E) of the training rows.
            train: (n,).
            test: (M, E).
        """

    def predict_by_probe(self, features: Features, train: Rows, test: Features) -> Predictions:
        """Return predictions (M, ...) of a linear model on frozen features; arguments as by neighbours."""

    def scores(self, predicted: Predictions, weights: npt.NDArray[np.float64]) -> dict[str, Scored]:
        """Measure predictions (M, ...) of the test rows under (R, M) weights of patients, by metric."""

    def widened(self, metric: str, known: Interval) -> Interval:
        """Return an interval as wide as so few patients have it, or wider."""

    def widened_difference(self, metric: str, known: Interval) -> Interval | None:
        """Return the same of a paired difference; None where there are too few patients for any comparison."""


@runtime_checkable
class DenseTask(Protocol):
    """What a task of pixels does beside: its targets go through the views with the images, and it predicts image by image."""

    def views(
        self, rows: Rows, viewer: Viewer, rng: torch.Generator, pieces: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return a view of each row (n, C, *S), and what the loss takes for them.

        Args:
            rows: (n,) training rows.
            viewer: Makes the views.
            rng: Gives their numbers, on the device.
            pieces: Says which piece of a volume is seen.
        """

    def predict(
        self, network: Callable[[Tensor], Tensor], rows: Rows, viewer: Viewer, device: torch.device
    ) -> Predictions:
        """Return predictions (n, ...) of whole images by a network that sees views."""
