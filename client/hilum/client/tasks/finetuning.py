"""Fine-tuning: a task's head, trained on the labelled images with all of the encoder, with adapters in it, or alone."""

import copy
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from hilum.client.data.prepared import Stored, drawn
from hilum.client.pretraining.parameter_groups import parameter_groups
from hilum.client.pretraining.schedule import learning_rate_factor, step_middle
from hilum.client.tasks.base import DenseTask, Predictions, Rows, Task
from hilum.client.tasks.features import mean_by_row, pieces_of
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


def predict_by_finetuning(
    task: Task,
    encoder: Encoder,
    images: Stored,
    train: Rows,
    study: StudyConfig,
    fabric: Fabric,
    steps: Progress,
    mode: Mode = "finetune",
) -> Predictions:
    """Return predictions of the test rows after training the task's head, and a copy of the encoder as `mode` has it.

    Every arm trains for as many steps, on the same batches and views: they depend on the study alone. The rate climbs
    over a tenth of the steps and falls to zero by a cosine.
    """
    evaluation, seed = study.evaluation, study.study.seed
    model = EncoderWithHead(copy.deepcopy(encoder), task.head(encoder))
    hold(model.encoder, mode, study)
    peak = {
        "frozen": evaluation.frozen_learning_rate,
        "lora": evaluation.lora_learning_rate,
        "finetune": evaluation.finetune_learning_rate,
    }[mode]
    optimizer = torch.optim.AdamW(parameter_groups(model, _WEIGHT_DECAY), lr=peak, fused=True)
    module, wrapped_optimizer = fabric.setup(model, optimizer)
    module.train()
    viewer, criterion = Viewer(study.data, changes=study.views), task.criterion(train, fabric.device)
    steps_an_epoch, epochs = finetuning_steps(len(train), study)
    total = steps_an_epoch * epochs
    for epoch in range(epochs):
        order = generator(seed, "finetune", epoch).permutation(len(train))
        for index, places in enumerate(np.array_split(order, steps_an_epoch)):
            number = epoch * steps_an_epoch + index
            for group in optimizer.param_groups:
                group["lr"] = peak * learning_rate_factor(step_middle(number, total), _WARMUP)
            rng = random_numbers(fabric.device, derive(seed, "finetune", "step", number))
            pieces = generator(seed, "finetune", "step", number, "pieces")
            wanted: Any = train[places]
            if isinstance(task, DenseTask):
                views, wanted = task.views(train[places], viewer, rng, pieces)
            else:
                blocks = drawn(images, train[places], pieces)
                views = viewer.one(to_unit(blocks, fabric.device), rng)
            wrapped_optimizer.zero_grad()
            fabric.backward(criterion(module(views), wanted))
            fabric.clip_gradients(module, wrapped_optimizer, max_norm=1.0)
            wrapped_optimizer.step()
            steps.advance(number + 1)
    merge_adapters(model.encoder)
    return _predict(task, module, viewer, images, fabric)


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
def _predict(task: Task, module: nn.Module, viewer: Viewer, images: Stored, fabric: Fabric) -> Predictions:
    module.eval()
    if isinstance(task, DenseTask):
        return task.predict(module, task.test, viewer, fabric.device)
    pieces = pieces_of(images, task.test, viewer, fabric.device)
    outputs = mean_by_row(len(task.test), ((places, module(batch)) for places, batch in pieces))
    return task.predictions(outputs)
