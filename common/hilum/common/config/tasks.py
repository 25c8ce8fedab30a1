"""The sections of tasks: what each site uses the shared encoder for, and by which numbers it is judged. No torch here."""

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from hilum.common.config.base import Section


class Metric(NamedTuple):
    """A metric, of which more is better.

    Attributes:
        low: The least value.
        high: The largest.
        chance: What predicting without looking gives; None where there is no such number.
        words: Its name in a sentence.
    """

    low: float
    high: float
    chance: float | None
    words: str


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
    }


class TasksSection(Section):
    """What each site uses the shared encoder for: tasks of different kinds, each measured and judged by itself."""

    classification: ClassificationTask | None = None

    @property
    def given(self) -> tuple[TaskSection, ...]:
        """The study's tasks, in the order of this section's fields; none where the encoder is pre-trained alone."""
        sections = [getattr(self, name) for name in type(self).model_fields]
        return tuple(section for section in sections if section is not None)

    @property
    def first(self) -> TaskSection | None:
        """The first of them: what a round's encoder is scored by."""
        return next(iter(self.given), None)


TASKS: dict[str, type[TaskSection]] = {task.kind: task for task in (ClassificationTask,)}
"""Every task by its name."""

METRICS: dict[str, Metric] = {
    name: metric for task in TASKS.values() for name, metric in task.metrics.items()
}
"""Every metric by its name."""
