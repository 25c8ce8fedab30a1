"""The task file: what a site engineer fine-tunes an encoder for, at their own site."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hilum.common.config.base import Section, Share
from hilum.common.config.data import DataSection
from hilum.common.config.site import FolderPath
from hilum.common.config.study import EvaluationSection, PrivacySection
from hilum.common.config.tasks import TasksSection
from hilum.common.config.views import ViewsSection

_OF_STUDIES = ("protocols", "arms", "label_fractions", "deadline_s", "knn_k")


class FinetuneSection(Section):
    """What is trained, and where it goes.

    Attributes:
        encoder: A run, or the `encoder` folder of one.
        site: The site file.
        out: Where the model is written; new or empty.
        mode: What trains: the head, head and adapters, or all.
        label_share: Of the labelled training patients.
        seed: Of everything that is drawn; the encoder's study's, if none.
    """

    encoder: FolderPath
    site: FolderPath
    out: FolderPath
    mode: Literal["frozen", "lora", "finetune"] = "finetune"
    label_share: Share = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class TaskConfig(Section):
    """One task at one site.

    Attributes:
        data: What images the task is about; the encoder's, if none, and it must be like that.
        evaluation: How is trained and measured: all keys of a study's but those that choose what a study compares.
        privacy: The threshold of the counts that the model tells.
    """

    finetune: FinetuneSection
    tasks: TasksSection
    data: DataSection | None = None
    views: ViewsSection = ViewsSection()
    evaluation: EvaluationSection = EvaluationSection()
    privacy: PrivacySection = PrivacySection()

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        idle = [key for key in _OF_STUDIES if key in self.evaluation.model_fields_set]
        if idle:
            raise ValueError(
                f"evaluation.{idle[0]} does nothing in a task file: finetune.mode and finetune.label_share say what is trained; "
                "take it out"
            )
        if self.privacy.model_fields_set - {"min_patients"}:
            raise ValueError("[privacy] of a task file has min_patients alone; take the rest out")
        if not self.tasks.given:
            raise ValueError("[tasks] names no task; write [tasks.classification] with the label's column")
        if len(self.tasks.given) > 1:
            named = ", ".join(task.kind for task in self.tasks.given)
            raise ValueError(f"[tasks] names {named}, and a model has one task; write a task file for each")
        return self
