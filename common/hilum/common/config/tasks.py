"""The sections of tasks: what each site uses the shared encoder for, and by which numbers it is judged. No torch here."""

from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from hilum.common.config.base import Section

MAX_LABEL = 1e8
"""What a quantity that is predicted may be at most, in its own unit, above or below 0."""
MAX_NUMBER = 1e9
"""What is told of its errors at most."""
MAX_DISTANCE_MM = 1e6
"""Between two surfaces: more than any image is wide, in millimetres or in pixels."""


class Metric(NamedTuple):
    """A metric.

    Attributes:
        low: The least value.
        high: The largest.
        chance: What predicting without looking gives; None where there is no such number.
        words: Its name in a sentence.
        better: Which values are better. Of a task's primary metric, more is.
    """

    low: float
    high: float
    chance: float | None
    words: str
    better: Literal["more", "less", "neither"] = "more"


Labels = Literal["classes", "findings", "numbers", "masks"]
"""What a task reads of a column of the label table: one class an image, several findings, or a number; or masks that are tied to images."""


class TaskSection(Section):
    """One task.

    Attributes:
        kind: The task's name, and its key under `[tasks]`.
        labels: What is predicted: classes or numbers in a column of the label table, or masks of the catalogue.
        protocols: Those of the evaluation that apply to it.
        validates: Whether a round's encoder can be scored by it on training patients, for `training.select = "knn"`.
        metrics: By name; the first is the primary one.
        label: The column of the site's label table that is predicted for an image.
    """

    kind: ClassVar[str]
    labels: ClassVar[Labels]
    metrics: ClassVar[dict[str, Metric]]
    protocols: ClassVar[tuple[str, ...]] = ("knn", "linear", "frozen", "lora", "finetune")
    validates: ClassVar[bool] = True

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
        "ece": Metric(0.0, 1.0, None, "calibration error", better="less"),
        "brier": Metric(0.0, 1.0, None, "Brier score", better="less"),
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
        "mae": Metric(0.0, MAX_NUMBER, None, "mean absolute error", "less"),
        "coverage": Metric(0.0, 1.0, None, "share inside of the prediction intervals", "neither"),
        "interval_width": Metric(0.0, MAX_NUMBER, None, "mean width of the prediction intervals", "less"),
    }

    coverage: Annotated[float, Field(ge=0.5, le=0.99)] = 0.9


ClassName = Annotated[str, Field(min_length=1, max_length=64)]


class SegmentationTask(TaskSection):
    """Predict which structure each pixel or voxel belongs to, from the masks of the site's catalogue.

    Attributes:
        label: Not a column: what a site's `policy.labels` lists masks as.
        classes: Names of masks in the catalogue; where masks overlap, the later one holds. All that a site has, in natural
            order, if none.
        tolerance_mm: Within which two surfaces agree, for the surface Dice; in pixels, of an image without a spacing.
    """

    kind: ClassVar[str] = "segmentation"
    labels: ClassVar[Labels] = "masks"
    metrics: ClassVar[dict[str, Metric]] = {
        "dice": Metric(0.0, 1.0, None, "Dice"),
        "surface_dice": Metric(0.0, 1.0, None, "surface Dice"),
        "hd95_mm": Metric(0.0, MAX_DISTANCE_MM, None, "95th percentile of the Hausdorff distance", "less"),
    }
    protocols: ClassVar[tuple[str, ...]] = ("frozen", "lora", "finetune")
    validates: ClassVar[bool] = False

    label: ClassVar[str] = "masks"  # type: ignore[misc]  # a site lists it, and no study writes it
    classes: Annotated[tuple[ClassName, ...], Field(strict=False, max_length=64)] = ()
    tolerance_mm: Annotated[float, Field(ge=0.01, le=100)] = 1.0

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("tasks.segmentation.classes names something twice; name each once")
        return self


class MultilabelTask(TaskSection):
    """Predict which findings an image shows, from cells that hold several with `|` or `;` between them.

    Attributes:
        nothing: What a cell says of an image without any; an empty cell is no label.
    """

    kind: ClassVar[str] = "multilabel"
    labels: ClassVar[Labels] = "findings"
    metrics: ClassVar[dict[str, Metric]] = {"mean_auroc": Metric(0.0, 1.0, 0.5, "mean AUROC over findings")}

    nothing: Annotated[str, Field(min_length=1, max_length=64)] = "No Finding"


class RetrievalTask(TaskSection):
    """Find training images of a test image's class by the encoder's features; nothing is trained.

    Attributes:
        k: How many images are found for `precision_at_k`.
    """

    kind: ClassVar[str] = "retrieval"
    labels: ClassVar[Labels] = "classes"
    metrics: ClassVar[dict[str, Metric]] = {
        "map": Metric(0.0, 1.0, None, "mean average precision"),
        "precision_at_k": Metric(0.0, 1.0, None, "precision at k"),
    }
    protocols: ClassVar[tuple[str, ...]] = ("knn",)
    validates: ClassVar[bool] = False

    k: Annotated[int, Field(ge=1, le=1000)] = 5


class TasksSection(Section):
    """What each site uses the shared encoder for: tasks of different kinds, each measured and judged by itself."""

    classification: ClassificationTask | None = None
    regression: RegressionTask | None = None
    segmentation: SegmentationTask | None = None
    multilabel: MultilabelTask | None = None
    retrieval: RetrievalTask | None = None

    @property
    def given(self) -> tuple[TaskSection, ...]:
        """The study's tasks, in the order of this section's fields; none where the encoder is pre-trained alone."""
        sections = [getattr(self, name) for name in type(self).model_fields]
        return tuple(section for section in sections if section is not None)

    @property
    def first(self) -> TaskSection | None:
        """The first of them: what a round's encoder is scored by."""
        return next(iter(self.given), None)


TASKS: dict[str, type[TaskSection]] = {
    task.kind: task
    for task in (ClassificationTask, RegressionTask, SegmentationTask, MultilabelTask, RetrievalTask)
}
"""Every task by its name."""

METRICS: dict[str, Metric] = {
    name: metric for task in TASKS.values() for name, metric in task.metrics.items()
}
"""Every metric by its name."""
