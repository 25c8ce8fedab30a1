"""The study file: what every site is asked to do.

Every number has an upper bound as well as a lower one, and every list and text a longest length: a study comes from
elsewhere, and is checked before anything is allocated for it. A test walks over all fields.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hilum.common.config.aggregators import AggregatorConfig, FedAvgConfig
from hilum.common.config.base import Name, Section, Share
from hilum.common.config.data import DataSection
from hilum.common.config.encoders import EncoderConfig, EncoderSection
from hilum.common.config.methods import MethodConfig, MethodSection
from hilum.common.config.modalities import MODALITIES
from hilum.common.config.named import name_of, options_of
from hilum.common.config.tasks import TaskSection, TasksSection
from hilum.common.config.views import ViewsSection

Arm = Literal["federated", "local", "centralised", "scratch", "random", "raw"]
Protocol = Literal["knn", "linear", "frozen", "lora", "finetune"]

MAX_SITES = 1000
MIN_PATIENTS = 11
"""No number that leaves a site comes from fewer patients than this, unless the study's author owns all the data."""

_MONTH_S = 31 * 86_400.0
Deadline = Annotated[float, Field(gt=0, le=_MONTH_S)]


def _layer_decay(given: Any) -> Any:
    """Refuse what is no layer decay in one line, where a union would take one for each of its kinds."""
    if given != "auto" and not (type(given) in (int, float) and 0 < given <= 1):
        raise ValueError(
            f'evaluation.layer_decay = {given!r}: expected "auto", or a number above 0 and at most 1'
        )
    return given


LayerDecay = Annotated[Annotated[float, Field(gt=0, le=1)] | Literal["auto"], BeforeValidator(_layer_decay)]


class StudySection(Section):
    """Who this study is."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 7


class TrainingSection(Section):
    """How a site trains between two exchanges.

    Attributes:
        base_learning_rate: The peak for a step of 256 images; a step of others takes its share (arXiv 1706.02677). The
            method's own, if none.
        warmup: Share of the whole schedule over which the rate climbs.
        checkpoint_minutes: How long a killed site may have trained for nothing; 0 writes after each step.
        compile: Whether a GPU's kernels are made for the encoder's blocks, once that takes less time than it saves.
        deterministic: Whether two runs on one kind of GPU give the same bits; on a processor they do in any case.
        gradient_checkpointing: Whether a step keeps the inputs of blocks alone and computes the rest twice: the same gradients
            with a fraction of the memory, for a fifth to a third more time.
        select: What picks the round whose encoder is the study's: the last one is (`none`), the one with the least training
            loss, or the one with the best nearest neighbours among labelled training patients.
        stop_on_collapse: Whether the study ends where the encoder has collapsed at most sites of a round.
    """

    batch_size: Annotated[int, Field(ge=1, le=8192)] = 256
    accumulate: Annotated[int, Field(ge=1, le=1024)] = 1
    local_epochs: Annotated[int, Field(ge=1, le=10_000)] = 2
    base_learning_rate: Annotated[float, Field(gt=0, le=10)] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.05
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    gradient_clip: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    checkpoint_minutes: Annotated[float, Field(ge=0, le=1440)] = 10.0
    stop_on_collapse: bool = False
    select: Literal["none", "loss", "knn"] = "none"
    gradient_checkpointing: bool = False
    compile: bool = True
    deterministic: bool = False


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


class EvaluationSection(Section):
    """How the encoder is measured: by patients it never saw, beside the baselines.

    Attributes:
        label_fractions: Of the labelled training patients. The verdict rests on the first.
        finetune_min_steps: Fine-tuning takes more epochs than `finetune_epochs` where these would be fewer steps: with
            few labels an epoch is a step or two, and what was hardly trained predicts one class for everybody.
        layer_decay: The rate of each layer of an encoder that was pre-trained, over that of the layer after it, where all of
            it is trained; 1 gives every layer the same, and "auto" is the encoder's own.
        validation_share: Of the labelled training patients, those that a fine-tuning holds out to choose when to stop and to
            calibrate, the same share of each class; 0 holds nobody out. Nobody is where a class has too few.
        patience: So many looks at the validation loss without a lower one, of 25 in a training, end it.
        class_weights: Whether classes weigh the same in the loss, however many images they have, or images do.
        precision: Of fine-tuning; features of a frozen encoder are in single precision in any case.
        frozen_learning_rate: Where the task's head alone is trained.
        lora_learning_rate: Where the head and low-rank adapters are.
        lora_rank: Of an adapter.
        lora_alpha: Over the rank, how much an adapter counts for.
    """

    protocols: Annotated[tuple[Protocol, ...], Field(strict=False, min_length=1, max_length=5)] = (
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
    finetune_min_steps: Annotated[int, Field(ge=1, le=100_000)] = 500
    finetune_learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-4
    layer_decay: LayerDecay = "auto"
    validation_share: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    patience: Annotated[int, Field(ge=1, le=1000)] = 5
    class_weights: Literal["balanced", "none"] = "balanced"
    precision: Literal["fp32", "bf16"] = "fp32"
    frozen_learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-3
    lora_learning_rate: Annotated[float, Field(gt=0, le=10)] = 2e-3
    lora_rank: Annotated[int, Field(ge=1, le=256)] = 8
    lora_alpha: Annotated[float, Field(gt=0, le=10_000)] = 16.0


class StudyConfig(Section):
    """One study, as every participant reads it."""

    study: StudySection
    data: DataSection
    encoder: EncoderConfig
    method: MethodConfig
    views: ViewsSection = ViewsSection()
    training: TrainingSection = TrainingSection()
    federation: FederationSection = FederationSection()
    privacy: PrivacySection = PrivacySection()
    tasks: TasksSection = TasksSection()
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if unfit := self.encoder.misfit(self.data):
            raise ValueError(unfit)
        if self.data.dims == 3 and not self.data.facts.volumes:  # noqa: PLR2004 - volumes
            others = _either([name for name, facts in MODALITIES.items() if facts.volumes])
            raise ValueError(
                f'data.dims = 3 asks for volumes, and data.modality = "{self.data.modality}" has images alone; '
                f"write data.dims = 2, or data.modality = {others}"
            )
        if invalid := self.views.misfit(self.data):
            raise ValueError(invalid)
        if self.views.strong is not None and not self.method.strong_views:
            raise ValueError(
                f'views.strong does nothing here: method.name = "{self.method.name}" takes mild views alone; write views.crop'
            )
        if does := type(self.method).misfit(type(self.encoder)):
            raise ValueError(self._no_pair(does))
        if small := self.method.too_small(self.encoder, self.data):
            raise ValueError(small)
        return self

    @model_validator(mode="after")
    def _can_be_carried_out(self) -> Self:
        for key in ("protocols", "arms", "label_fractions"):
            values = getattr(self.evaluation, key)
            if len(set(values)) < len(values):
                raise ValueError(f"evaluation.{key} names something twice; name each once")
        for task in self.tasks.given:
            if does := self._no_protocol(task):
                raise ValueError(does)
        if self.training.select == "knn" and not self.tasks.given:
            raise ValueError(
                'training.select = "knn" needs a task to score encoders by; add `[tasks.classification]`, or write training.select = "loss"'
            )
        if self.quorum > self.federation.sites:
            raise ValueError(
                f"federation.quorum = {self.quorum} is more than federation.sites = {self.federation.sites}; "
                "a quorum is at most the number of sites"
            )
        if self.training.batch_size < self.method.min_batch:
            raise ValueError(
                f'method.name = "{self.method.name}" {self.method.min_batch_reason}, so training.batch_size must be '
                f"{self.method.min_batch} or more"
            )
        return self

    def _no_protocol(self, task: TaskSection) -> str:
        """Return what to write instead of what does not apply to a task; empty where all does."""
        of_all = {one for other in self.tasks.given for one in other.protocols}
        asked = self.evaluation.protocols
        unfit: list[str] = [one for one in asked if one not in of_all]
        if not set(asked) & set(task.protocols):
            unfit = list(asked)
        fitting = ", ".join(f'"{one}"' for one in task.protocols)
        if unfit:
            return (
                f"evaluation.protocols names {_either(unfit)}, which does not apply to tasks.{task.kind}; write "
                f"evaluation.protocols = [{fitting}]"
            )
        if self.training.select == "knn" and task is self.tasks.first and not task.validates:
            return (
                f'training.select = "knn" scores encoders by what nearest neighbours predict of training patients, which '
                f'tasks.{task.kind} has not; add `[tasks.classification]`, or write training.select = "loss"'
            )
        return ""

    def _no_pair(self, does: str) -> str:
        """Return what to write instead of a method and an encoder that don't go together."""
        method, encoder = self.method, self.encoder
        fields = type(self).model_fields
        encoders = [
            name_of(one)
            for one in options_of(fields["encoder"].annotation)
            if issubclass(one, EncoderSection) and not method.misfit(one)
        ]
        methods = [
            name_of(one)
            for one in options_of(fields["method"].annotation)
            if issubclass(one, MethodSection) and not one.misfit(type(encoder))
        ]
        return (
            f'method.name = "{method.name}" {does}, which encoder.name = "{encoder.name}" can\'t do; write encoder.name = '
            f"{_either(encoders)}, or method.name = {_either(methods)}"
        )

    @property
    def base_learning_rate(self) -> float:
        """The peak for a step of 256 images: the study's, or the method's own."""
        return self.training.base_learning_rate or self.method.base_learning_rate

    @property
    def layer_decay(self) -> float:
        """The rate of a layer over that of the one after it, where a pre-trained encoder is fine-tuned."""
        decay = self.evaluation.layer_decay
        return self.encoder.layer_decay if decay == "auto" else decay

    @property
    def quorum(self) -> int:
        """How many updates a round needs to count: a majority and at least two, unless the study says otherwise."""
        sites = self.federation.sites
        return self.federation.quorum or min(sites, max(2, sites // 2 + 1))


def _either(names: list[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)
