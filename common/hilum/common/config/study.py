"""The study file: what every site is asked to do.

Every number has an upper bound as well as a lower one, and every list and text a longest length: a study comes from
elsewhere, and is checked before anything is allocated for it. A test walks over all fields.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hilum.common.config.base import Name, Section, Share
from hilum.common.config.choices import AggregatorConfig, EncoderConfig, FedAvgConfig, MethodConfig, VitConfig

Modality = Literal["radiograph", "ct", "mr"]
Arm = Literal["federated", "local", "centralised", "scratch", "random", "raw"]
Protocol = Literal["knn", "linear", "finetune"]

_IMAGES_ALONE = frozenset({"radiograph"})
"""Modalities whose objects are images and never volumes."""

MAX_SITES = 1000
MIN_PATIENTS = 11
"""No number that leaves a site comes from fewer patients than this, unless the study's author owns all the data."""

_MONTH_S = 31 * 86_400.0
Deadline = Annotated[float, Field(gt=0, le=_MONTH_S)]


class StudySection(Section):
    """Who this study is."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 7


class DataSection(Section):
    """Which images, and at what size the encoder sees them."""

    modality: Modality
    dims: Literal[2, 3] = 2
    image_size: Annotated[int, Field(ge=8, le=1024)] = 64

    @property
    def store_size(self) -> int:
        """Edge of the prepared arrays: a quarter more than the view, so that crops keep real detail."""
        return self.image_size + self.image_size // 4


class TrainingSection(Section):
    """How a site trains between two exchanges."""

    batch_size: Annotated[int, Field(ge=1, le=8192)] = 32
    accumulate: Annotated[int, Field(ge=1, le=1024)] = 1
    local_epochs: Annotated[int, Field(ge=1, le=10_000)] = 2
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.05
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    gradient_clip: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    checkpoint_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50


class FederationSection(Section):
    """How sites come together.

    Attributes:
        return_s: How long a round that has its quorum waits for a site that was lost on the way.
        norm_ratio: An update may be so many times as large as the running median of the updates' norms.
        aggregator: How a round's updates become one change of the weights.
    """

    rounds: Annotated[int, Field(ge=1, le=100_000)] = 5
    sites: Annotated[int, Field(ge=1, le=MAX_SITES)] = 3
    quorum: Annotated[int, Field(ge=1, le=MAX_SITES)] | None = None
    deadline_s: Deadline = 3600.0
    return_s: Deadline = 120.0
    example_cap: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    norm_ratio: Annotated[float, Field(ge=1.5, le=1e6)] = 10.0
    aggregator: AggregatorConfig = FedAvgConfig(name="fedavg")


class PrivacySection(Section):
    """What bounds a site's influence, and what one patient can be seen of. No noise is added yet, so no epsilon is claimed.

    Attributes:
        min_patients: Counts and metrics that leave a site stand for at least so many patients. Only where the study's
            author owns all the data may it be lower than `MIN_PATIENTS`.
    """

    mechanism: Literal["none"] = "none"
    max_update_norm: Annotated[float, Field(gt=0, le=1e9)] | None = None
    min_patients: Annotated[int, Field(ge=1, le=1000)] = MIN_PATIENTS


class ClassificationTask(Section):
    """Predict one column of the site's label table for an image."""

    label: Annotated[str, Field(min_length=1, max_length=64)] = "label"


class TasksSection(Section):
    """What each site fine-tunes the shared encoder for."""

    classification: ClassificationTask | None = None


class EvaluationSection(Section):
    """How the encoder is measured: by patients it never saw, beside the baselines.

    Attributes:
        label_fractions: Of the labelled training patients. The verdict rests on the first.
        finetune_min_steps: Fine-tuning takes more epochs than `finetune_epochs` where these would be fewer steps: with
            few labels an epoch is a step or two, and what was hardly trained predicts one class for everybody.
    """

    protocols: Annotated[tuple[Protocol, ...], Field(strict=False, min_length=1, max_length=3)] = (
        "knn",
        "linear",
        "finetune",
    )
    arms: Annotated[tuple[Arm, ...], Field(strict=False, min_length=1, max_length=6)] = (
        "federated",
        "local",
        "centralised",
        "scratch",
        "random",
        "raw",
    )
    label_fractions: Annotated[tuple[Share, ...], Field(strict=False, min_length=1, max_length=10)] = (
        0.1,
        1.0,
    )
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    bootstrap_draws: Annotated[int, Field(ge=100, le=100_000)] = 1000
    deadline_s: Deadline = 86_400.0
    knn_k: Annotated[int, Field(ge=1, le=10_000)] = 20
    finetune_epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    finetune_batch_size: Annotated[int, Field(ge=1, le=8192)] = 16
    finetune_min_steps: Annotated[int, Field(ge=1, le=100_000)] = 200
    finetune_learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-4


class StudyConfig(Section):
    """One study, as every participant reads it."""

    study: StudySection
    data: DataSection
    encoder: EncoderConfig
    method: MethodConfig
    training: TrainingSection = TrainingSection()
    federation: FederationSection = FederationSection()
    privacy: PrivacySection = PrivacySection()
    tasks: TasksSection = TasksSection()
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if isinstance(self.encoder, VitConfig) and self.data.image_size % self.encoder.patch_size:
            raise ValueError(
                f"data.image_size = {self.data.image_size} is not a multiple of "
                f"encoder.patch_size = {self.encoder.patch_size}; choose one that is"
            )
        if self.data.dims == 3 and self.data.modality in _IMAGES_ALONE:  # noqa: PLR2004 - volumes
            raise ValueError(
                f'data.dims = 3 asks for volumes, and data.modality = "{self.data.modality}" has images alone; '
                'write data.dims = 2, or data.modality = "ct" or "mr"'
            )
        if self.method.name == "mae" and self.encoder.name != "vit":
            raise ValueError(
                f'method.name = "mae" drops patches before the encoder, which encoder.name = "{self.encoder.name}" '
                'can\'t do; write encoder.name = "vit", or method.name = "simclr"'
            )
        if self.quorum > self.federation.sites:
            raise ValueError(
                f"federation.quorum = {self.quorum} is more than federation.sites = {self.federation.sites}; "
                "a quorum is at most the number of sites"
            )
        if self.method.name == "simclr" and self.training.batch_size < 2:  # noqa: PLR2004 - a pair needs a rival
            raise ValueError(
                'method.name = "simclr" contrasts images, so training.batch_size must be 2 or more'
            )
        return self

    @property
    def quorum(self) -> int:
        """How many updates a round needs to count: a majority and at least two, unless the study says otherwise."""
        sites = self.federation.sites
        return self.federation.quorum or min(sites, max(2, sites // 2 + 1))
