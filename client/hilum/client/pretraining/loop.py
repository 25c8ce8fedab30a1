"""One round of self-supervised training at one site.

Shapes: B batch, V views, C channels, *S space.

The state of a round is the weights, the optimizer and the number of the next step; every random number is derived
from (seed, site, round, step). So a round that was killed goes on from its last step checkpoint and ends with the
bits that it would have had. The optimizer starts from nothing in each round: its moments belong to weights that the
aggregation has since moved.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric

from hilum.client.data.prepared import Packed
from hilum.client.pretraining.checkpoint import load_state, save_state
from hilum.client.pretraining.parameter_groups import parameter_groups
from hilum.client.pretraining.sampling import Sampler, StepRows
from hilum.client.pretraining.schedule import learning_rate_factor, step_middle
from hilum.client.pretraining.step import MicroBatch, PlainStep
from hilum.client.views import Viewer, to_unit
from hilum.common.config import StudyConfig
from hilum.common.methods import SSLMethod
from hilum.common.progress import Progress
from hilum.common.seeding import derive


@dataclass(frozen=True)
class RoundPlace:
    """Which round this is, and where it may keep its step checkpoint.

    Attributes:
        start: Names the weights and images that the round starts from; a checkpoint of others is not taken up.
    """

    site: str
    round_number: int
    start: str
    checkpoint: Path | None = None


@dataclass(frozen=True)
class RoundOutcome:
    """What a round of training tells of itself.

    Attributes:
        loss: Mean over the round's steps.
        steps: How many there were.
        seconds: Wall time, without what was done before an interruption.
    """

    loss: float
    steps: int
    seconds: float


def train_round(
    method: SSLMethod,
    images: Packed,
    sampler: Sampler,
    study: StudyConfig,
    place: RoundPlace,
    fabric: Fabric,
    progress: Progress,
) -> RoundOutcome:
    """Train `method` in place for one round.

    Args:
        method: The method with the round's starting weights, on the CPU.
        images: uint16 (N, C, *store).
        sampler: Gives the rows of every step.
        study: The study.
        place: Which round this is.
        fabric: The device to train on.
        progress: Told after each step.
    """
    started = time.monotonic()
    training = study.training
    optimizer = torch.optim.AdamW(
        parameter_groups(method, training.weight_decay),
        lr=training.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    wrapped, wrapped_optimizer = fabric.setup(method, optimizer)
    wrapped.train()
    step = PlainStep(fabric, wrapped, wrapped_optimizer, training.gradient_clip)
    plan = sampler.plan(study.study.seed, place.site, place.round_number)
    viewer = Viewer(study.data, method.spec.views)
    start, losses = _restore_checkpoint(method, optimizer, place, len(plan))
    for index in range(start, len(plan)):
        done = (place.round_number - 1 + step_middle(index, len(plan))) / study.federation.rounds
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * learning_rate_factor(done, training.warmup)
        rng = torch.Generator().manual_seed(
            derive(study.study.seed, place.site, "round", place.round_number, "step", index)
        )
        batches = _micro_batches(plan[index], images, viewer, method, rng, fabric)
        losses.append(step(batches, len(plan[index])))
        progress.advance(index + 1, f"loss {losses[-1]:.4f}")
        if place.checkpoint and (index + 1) % training.checkpoint_steps == 0 and index + 1 < len(plan):
            _keep(method, optimizer, place, index + 1, losses)
    if place.checkpoint:
        place.checkpoint.unlink(missing_ok=True)
    return RoundOutcome(sum(losses) / len(losses), len(losses), time.monotonic() - started)


def _micro_batches(
    rows: StepRows, images: Packed, viewer: Viewer, method: SSLMethod, rng: torch.Generator, fabric: Fabric
) -> Iterator[MicroBatch]:
    for batch in rows:
        views = viewer(to_unit(images[batch], fabric.device), rng)
        yield views, method.draw(len(batch), rng).to(fabric.device)


def _keep(
    method: SSLMethod,
    optimizer: torch.optim.Optimizer,
    place: RoundPlace,
    next_step: int,
    losses: list[float],
) -> None:
    assert place.checkpoint is not None
    save_state(
        place.checkpoint,
        {
            "round": place.round_number,
            "start": place.start,
            "next_step": next_step,
            "losses": losses,
            "method": method.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
    )


def _restore_checkpoint(
    method: SSLMethod, optimizer: torch.optim.Optimizer, place: RoundPlace, steps: int
) -> tuple[int, list[float]]:
    """Load this round's step checkpoint, if there is one; give the next step and the losses so far."""
    state = load_state(place.checkpoint) if place.checkpoint else None
    if state is None or (state["round"], state["start"]) != (place.round_number, place.start):
        return 0, []
    assert state["next_step"] < steps, "the same start and round have the same plan"
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    return state["next_step"], state["losses"]
