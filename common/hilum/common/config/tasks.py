"""The sections of tasks: what each site uses the shared encoder for, and by which numbers it is judged. No torch here."""

from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from hilum.common.config.base import Section


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


class TaskSection(Section):
    """One task.

    Attributes:
        kind: The task's name, and its key under `[tasks]`.
        labels: What the column holds: names of classes, or numbers.
        metrics: By name; the first is the primary one.
        label: The column of the site's label table that is predicted for an image.
    """

    kind: ClassVar[str]
    labels: ClassVar[Literal["classes", "numbers"]]
    metrics: ClassVar[dict[str, Metric]]

    label: Annotated[str, Field(min_length=1, max_length=64)] = "label"

    @classmethod
    def primary(cls) -> str:
        """Return the metric that a verdict rests on."""
        return next(iter(cls.metrics))


class ClassificationTask(TaskSection):
    """Predict one column of the site's label table for an image."""

    kind: ClassVar[str] = "classification"
    labels: ClassVar[Literal["classes", "numbers"]] = "classes"
    metrics: ClassVar[dict[str, Metric]] = {
        "auroc": Metric(0.0, 1.0, 0.5, "AUROC"),
        "balanced_accuracy": Metric(0.0, 1.0, None, "balanced accuracy"),
        "ece": Metric(0.0, 1.0, None, "calibration error", less_is_better=True),
        "brier": Metric(0.0, 1.0, None, "Brier score", less_is_better=True),
    }


class TasksSection(Section):
    """What each site fine-tunes the shared encoder for."""

    classification: ClassificationTask | None = None

    @model_validator(mode="after")
    def _one_at_most(self) -> Self:
        given = [task.kind for task in self._given()]
        if len(given) > 1:
            raise ValueError(
                f"the study names {len(given)} tasks ({', '.join(given)}), and one is measured at a time; leave one, and "
                "make a study of its own for the other"
            )
        return self

    @property
    def chosen(self) -> TaskSection | None:
        """The study's task; None where the encoder is pre-trained alone."""
        return next(iter(self._given()), None)

    def judged_by(self) -> type[TaskSection]:
        """Return the task whose metrics a verdict uses; that of an encoder without a task says that nothing was measured."""
        return ClassificationTask if self.chosen is None else type(self.chosen)

    def _given(self) -> list[TaskSection]:
        sections = [getattr(self, name) for name in type(self).model_fields]
        return [section for section in sections if section is not None]


TASKS: dict[str, type[TaskSection]] = {task.kind: task for task in (ClassificationTask,)}
"""Every task by its name."""

METRICS: dict[str, Metric] = {
    name: metric for task in TASKS.values() for name, metric in task.metrics.items()
}
"""Every metric by its name."""
