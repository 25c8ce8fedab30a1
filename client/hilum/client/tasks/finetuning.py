"""Fine-tuning: a task's head, trained on the labelled images with all of the encoder, with adapters in it, or alone.

Shapes: n training images, h of them held out, M test images, B batch, C channels, *S space.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from hilum.client.data.prepared import Stored, drawn
from hilum.client.pretraining.schedule import learning_rate_factor, step_middle
from hilum.client.tasks.base import Criterion, DenseTask, Predictions, Rows, Task
from hilum.client.tasks.early_stopping import Watch
from hilum.client.tasks.features import mean_by_row, pieces_of
from hilum.client.tasks.layer_decay import layer_groups
from hilum.client.tasks.lora import add_adapters, merge_adapters
from hilum.client.views import Viewer, random_numbers, to_unit
from hilum.common.config import StudyConfig
from hilum.common.encoders import Encoder
from hilum.common.progress import Progress
from hilum.common.seeding import derive, generator

Mode = Literal["frozen", "lora", "finetune"]
"""What trains: the head; the head and adapters; all. Protocols of the evaluation have these names."""
MODES: tuple[Mode, ...] = get_args(Mode)
_WARMUP = 0.1
_WEIGHT_DECAY = 0.05
_CHECKS = 25  # of the validation loss, in a whole training


class EncoderWithHead(nn.Module):
    """An encoder, and a head on the images and their feature maps."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def train(self, mode: bool = True) -> "EncoderWithHead":
        """Train or evaluate; an encoder that does not move stays in evaluation."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> the head's outputs."""
        outputs: Tensor = self.head([images, *self.encoder.feature_maps(images)])
        return outputs


class PooledLinear(nn.Linear):
    """A linear layer on the mean of the last feature map; it begins at zero, so no output is preferred."""

    def __init__(self, encoder: Encoder, outputs: int) -> None:
        super().__init__(encoder.width, outputs)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, maps: list[Tensor]) -> Tensor:  # type: ignore[override]  # a head takes feature maps
        """Feature maps -> (B, outputs)."""
        return super().forward(maps[-1].flatten(2).mean(2))


@dataclass(frozen=True)
class Finetuned:
    """A trained model.

    Attributes:
        module: In evaluation mode, with plain weights: adapters are merged.
        temperature: What outputs are divided by; None where the task has none, or nobody was held out.
        validated: Whether the weights are those with the least loss on patients that were held out; else they are the last.
        steps: How many were taken.
    """

    module: EncoderWithHead = field(repr=False)
    temperature: float | None
    validated: bool
    steps: int


@dataclass(frozen=True)
class Labelled:
    """The labelled images of a fine-tuning.

    Attributes:
        task: Whose labels they have.
        images: The site's.
        fit: (n,) rows that are trained on.
        held: (h,) rows that are held out; none where a class has too few patients.
    """

    task: Task = field(repr=False)
    images: Stored = field(repr=False)
    fit: Rows
    held: Rows


def predict_by_finetuning(
    task: Task,
    encoder: Encoder,
    images: Stored,
    train: Rows,
    study: StudyConfig,
    fabric: Fabric,
    steps: Progress,
    mode: Mode = "finetune",
    *,
    pretrained: bool = True,
) -> tuple[Predictions, Finetuned]:
    """Return predictions (M, ...) of the test rows, and the model that made them; arguments as of `finetune`."""
    tuned = finetune(task, encoder, images, train, study, fabric, steps, mode, pretrained=pretrained)
    if isinstance(task, DenseTask):
        viewer = Viewer(study.data, changes=study.views)
        return task.predict(tuned.module, task.test, viewer, fabric.device), tuned
    outputs = outputs_of(tuned.module, images, task.test, study, fabric)
    return task.predictions(outputs / (tuned.temperature or 1.0)), tuned


def finetune(
    task: Task,
    encoder: Encoder,
    images: Stored,
    train: Rows,
    study: StudyConfig,
    fabric: Fabric,
    steps: Progress,
    mode: Mode = "finetune",
    *,
    pretrained: bool = True,
) -> Finetuned:
    """Train the task's head, and a copy of the encoder as `mode` has it.

    Every arm trains for as many steps at most, on the same batches and views: they depend on the study alone. The rate
    climbs over a tenth of the steps and falls to zero by a cosine. A share of the training patients is held out where each
    class has enough of them: training stops when their loss no longer falls, the weights with the least are kept, and
    their outputs give the temperature.

    Args:
        task: The task.
        encoder: What to begin with.
        images: The site's.
        train: (n,) rows that may be trained on, whoever is held out included.
        study: The study.
        fabric: The device and precision.
        steps: Told after each step; it may stop the work.
        mode: What trains.
        pretrained: Whether the encoder was; the first layers of one that was not take the whole rate, since they have
            nothing to keep.
    """
    held = task.validation_rows(train)
    labelled = Labelled(task, images, np.setdiff1d(train, held), held)
    model = EncoderWithHead(copy.deepcopy(encoder), task.head(encoder))
    hold(model.encoder, mode, study)
    peak = {
        "frozen": study.evaluation.frozen_learning_rate,
        "lora": study.evaluation.lora_learning_rate,
        "finetune": study.evaluation.finetune_learning_rate,
    }[mode]
    decay = study.layer_decay if mode == "finetune" and pretrained else 1.0
    groups = layer_groups(model.encoder, model.head, peak=peak, decay=decay, weight_decay=_WEIGHT_DECAY)
    taken = _train(model, groups, labelled, study, fabric, steps)
    merge_adapters(model.encoder)
    model.eval()
    temperature = None
    if len(held) and not isinstance(task, DenseTask):
        temperature = task.temperature(outputs_of(model, images, held, study, fabric), held)
    return Finetuned(model, temperature, validated=bool(len(held)), steps=taken)


def _train(
    model: EncoderWithHead,
    groups: list[dict[str, Any]],
    labelled: Labelled,
    study: StudyConfig,
    fabric: Fabric,
    steps: Progress,
) -> int:
    """Train a model in place, and return how many steps it took."""
    seed, fit, task = study.study.seed, labelled.fit, labelled.task
    criterion = task.criterion(fit, fabric.device)
    module, optimizer = fabric.setup(model, torch.optim.AdamW(groups, fused=True))
    module.train()
    viewer, watch = Viewer(study.data, changes=study.views), Watch(model, study.evaluation.patience)
    steps_an_epoch, epochs = finetuning_steps(len(fit), study)
    total, taken = steps_an_epoch * epochs, 0
    for number, places in enumerate(_batches(len(fit), steps_an_epoch, epochs, seed)):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate_factor(step_middle(number, total), _WARMUP)
        rng = random_numbers(fabric.device, derive(seed, "finetune", "step", number))
        views, wanted = _seen(
            labelled, fit[places], viewer, rng, generator(seed, "finetune", "step", number, "pieces")
        )
        optimizer.zero_grad()
        fabric.backward(criterion(module(views), wanted))
        fabric.clip_gradients(module, optimizer, max_norm=1.0)
        optimizer.step()
        taken = number + 1
        steps.advance(taken)
        if len(labelled.held) and _is_check(number, total):
            loss = _validation_loss(module, criterion, labelled, study, fabric)
            module.train()
            if watch.should_stop(loss):
                break
    watch.restore()
    return taken


def _seen(
    labelled: Labelled, rows: Rows, viewer: Viewer, rng: torch.Generator, pieces: np.random.Generator
) -> tuple[Tensor, Any]:
    """Return a mild view of each row, and what the loss takes for them."""
    if isinstance(labelled.task, DenseTask):
        return labelled.task.views(rows, viewer, rng, pieces)
    return viewer.one(to_unit(drawn(labelled.images, rows, pieces), rng.device), rng), rows


@torch.no_grad()
def _validation_loss(
    module: nn.Module, criterion: Criterion, labelled: Labelled, study: StudyConfig, fabric: Fabric
) -> float:
    """Return the mean loss of the rows that are held out: of whole images, or of the same views at each look where pixels are predicted."""
    held, size = labelled.held, study.evaluation.finetune_batch_size
    if not isinstance(labelled.task, DenseTask):
        outputs = outputs_of(module, labelled.images, held, study, fabric)
        return float(criterion(outputs.to(fabric.device), held))
    module.eval()
    viewer, total = Viewer(study.data, changes=study.views), 0.0
    rng = random_numbers(fabric.device, derive(study.study.seed, "finetune", "held out"))
    pieces = generator(study.study.seed, "finetune", "held out", "pieces")
    for start in range(0, len(held), size):
        rows = held[start : start + size]
        views, wanted = _seen(labelled, rows, viewer, rng, pieces)
        total += float(criterion(module(views), wanted)) * len(rows)
    return total / len(held)


def hold(encoder: Encoder, mode: Mode, study: StudyConfig) -> None:
    """Let nothing of an encoder train (`frozen`), adapters that are added to it (`lora`), or all of it (`finetune`)."""
    if mode == "frozen":
        encoder.requires_grad_(False)
    elif mode == "lora":
        evaluation = study.evaluation
        rng = torch.Generator().manual_seed(derive(study.study.seed, "adapters"))
        add_adapters(encoder, evaluation.lora_rank, evaluation.lora_alpha, rng)


def finetuning_steps(images: int, study: StudyConfig) -> tuple[int, int]:
    """Return the steps of an epoch, and how many epochs of them it takes to reach the study's epochs and its least steps.

    Args:
        images: How many are trained on, one or more.
        study: The study.
    """
    evaluation = study.evaluation
    steps = -(-images // evaluation.finetune_batch_size)
    return steps, max(evaluation.finetune_epochs, -(-evaluation.finetune_min_steps // steps))


@torch.no_grad()
def outputs_of(module: nn.Module, images: Stored, rows: Rows, study: StudyConfig, fabric: Fabric) -> Tensor:
    """Return a model's outputs for some rows, on the CPU: of a volume that it sees in pieces, their mean."""
    module.eval()
    pieces = pieces_of(images, rows, Viewer(study.data, changes=study.views), fabric.device)

    def outputs() -> Iterator[tuple[Rows, Tensor]]:
        for places, batch in pieces:
            with fabric.autocast():
                yield places, module(batch)

    return mean_by_row(len(rows), outputs())


def _batches(images: int, steps_an_epoch: int, epochs: int, seed: int) -> Iterator[Rows]:
    """Yield the places of each step's images among those that are trained on; each image once an epoch."""
    for epoch in range(epochs):
        order = generator(seed, "finetune", epoch).permutation(images)
        yield from np.array_split(order, steps_an_epoch)


def _is_check(number: int, total: int) -> bool:
    """Tell whether the validation loss is looked at after a step: at even distances, and at the end."""
    return (number + 1) * _CHECKS // total > number * _CHECKS // total
