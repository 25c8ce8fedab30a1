"""The sections of tasks: what each site uses the shared encoder for, and by which numbers it is judged. No torch here."""

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from hilum.common.config.base import Section

MAX_LABEL = 1e8
"""What a quantity that is predicted may be at most, in its own unit, above or below 0."""
MAX_NUMBER = 1e9
"""What is told of its errors at most."""


class Metric(NamedTuple):
    """A metric.

    Attributes:
        low: The least value.
        high: The largest.
        chance: What predicting without looking gives; None where there is no such number.
        words: Its name in a sentence.
        less_is_better: Whether it is an error; of a primary metric more is better.
    """

    low: float
    high: float
    chance: float | None
    words: str
    less_is_better: bool = False


Labels = Literal["classes", "numbers"]
"""What a task reads: names of classes, or numbers."""


class TaskSection(Section):
    """One task.

    Attributes:
        kind: The task's name, and its key under `[tasks]`.
        labels: What the column holds.
        metrics: By name; the first is the primary one.
        label: The column of the site's label table that is predicted for an image.
    """

    kind: ClassVar[str]
    labels: ClassVar[Labels]
    metrics: ClassVar[dict[str, Metric]]

    label: Annotated[str, Field(min_length=1, max_length=64)] = "label"

    @classmethod
    def primary(cls) -> str:
        """Return the metric that a verdict rests on."""
        return next(iter(cls.metrics))


class ClassificationTask(TaskSection):
    """Predict one column of the site's label table for an image."""

    kind: ClassVar[str] = "classification"
    labels: ClassVar[Labels] = "classes"
    metrics: ClassVar[dict[str, Metric]] = {
        "auroc": Metric(0.0, 1.0, 0.5, "AUROC"),
        "balanced_accuracy": Metric(0.0, 1.0, None, "balanced accuracy"),
        "ece": Metric(0.0, 1.0, None, "calibration error", less_is_better=True),
        "brier": Metric(0.0, 1.0, None, "Brier score", less_is_better=True),
    }


class RegressionTask(TaskSection):
    """Predict a number in a column of the site's label table for an image, with an interval around it.

    Attributes:
        coverage: How many of the images the prediction intervals are to hold, as a share.
    """

    kind: ClassVar[str] = "regression"
    labels: ClassVar[Labels] = "numbers"
    metrics: ClassVar[dict[str, Metric]] = {
        "r2": Metric(-1.0, 1.0, 0.0, "R²"),
        "spearman": Metric(-1.0, 1.0, 0.0, "rank correlation"),
        "mae": Metric(0.0, MAX_NUMBER, None, "mean absolute error", less_is_better=True),
        "coverage": Metric(0.0, 1.0, None, "share inside of the prediction intervals"),
        "interval_width": Metric(
            0.0, MAX_NUMBER, None, "mean width of the prediction intervals", less_is_better=True
        ),
    }

    coverage: Annotated[float, Field(ge=0.5, le=0.99)] = 0.9


class TasksSection(Section):
    """What each site uses the shared encoder for: tasks of different kinds, each measured and judged by itself."""

    classification: ClassificationTask | None = None
    regression: RegressionTask | None = None

    @property
    def given(self) -> tuple[TaskSection, ...]:
        """The study's tasks, in the order of this section's fields; none where the encoder is pre-trained alone."""
        sections = [getattr(self, name) for name in type(self).model_fields]
        return tuple(section for section in sections if section is not None)

    @property
    def first(self) -> TaskSection | None:
        """The first of them: what a round's encoder is scored by."""
        return next(iter(self.given), None)


TASKS: dict[str, type[TaskSection]] = {task.kind: task for task in (ClassificationTask, RegressionTask)}
"""Every task by its name."""

METRICS: dict[str, Metric] = {
    name: metric for task in TASKS.values() for name, metric in task.metrics.items()
}
"""Every metric by its name."""
