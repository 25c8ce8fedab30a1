"""One round of self-supervised training at one site.

Shapes: n rows of a micro-batch, C channels, *S space.

The state of a round is the weights, the optimizer and the number of the next step; every random number of a step is derived
from (seed, site, round, step). So a round that was killed goes on from its last step checkpoint and ends with the
bits that it would have had. The optimizer starts from nothing in each round: its moments belong to weights that the
aggregation has since moved.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric

from hilum.client.data.prepared import Stored, cut
from hilum.client.data.site_data import SiteData
from hilum.client.pretraining.checkpoint import load_state, save_state
from hilum.client.pretraining.mechanisms import MECHANISMS
from hilum.client.pretraining.optimizer import make_optimizer
from hilum.client.pretraining.sampling import StepDraws
from hilum.client.pretraining.schedule import learning_rate_factor, rewarmed, step_middle
from hilum.client.pretraining.step import MicroBatch, StepOutcome
from hilum.client.views import Share, Viewer, to_unit
from hilum.common.config import StudyConfig
from hilum.common.encoders.blocks import recompute
from hilum.common.methods import SSLMethod
from hilum.common.progress import Progress
from hilum.common.seeding import derive

_BASE_IMAGES = 256  # what the base learning rate is stated for
_FORMAT = 3  # of a step checkpoint; one of another format is not taken up


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
        parts: Means of the loss's parts, by name.
        health: Means of what the method tells of its health, by name.
        gradient_norm: Mean, before it was clipped.
        steps: How many there were; the means are over those that were not skipped.
        skipped: How many moved nothing, since their gradient was not finite.
        seconds: Wall time, without what was done before an interruption.
    """

    loss: float
    parts: dict[str, float]
    health: dict[str, float]
    gradient_norm: float
    steps: int
    skipped: int
    seconds: float


def train_round(
    method: SSLMethod,
    data: SiteData,
    study: StudyConfig,
    place: RoundPlace,
    fabric: Fabric,
    progress: Progress,
) -> RoundOutcome:
    """Train `method` in place for one round.

    Args:
        method: The method with the round's starting weights, on the CPU.
        data: The site's images, and who is trained on.
        study: The study; its `[privacy]` chooses who is drawn and how a step is taken.
        place: Which round this is.
        fabric: The device to train on.
        progress: Told after each step.
    """
    started = time.monotonic()
    training, rounds = study.training, study.federation.rounds
    optimizer = make_optimizer(method, study)
    recompute(method, training.gradient_checkpointing)
    wrapped, wrapped_optimizer = fabric.setup(method, optimizer)
    wrapped.train()
    mechanism = MECHANISMS[study.privacy.mechanism]
    step = mechanism.step(fabric, wrapped, wrapped_optimizer, study)
    plan = mechanism.sampler(data, study).plan(study.study.seed, place.site, place.round_number)
    viewer = Viewer(study.data, method.spec.views, study.views)
    sizes = [[len(draws.rows) for draws in step_draws] for step_draws in plan]
    peak = study.base_learning_rate * sum(map(sum, sizes)) / len(plan) / _BASE_IMAGES
    keeps = place.checkpoint is not None and fabric.global_rank == 0
    start, outcomes = _restore_checkpoint(method, optimizer, place, len(plan))
    for index in range(start, len(plan)):
        done = (place.round_number - 1 + step_middle(index, len(plan))) / rounds
        for group in optimizer.param_groups:
            group["lr"] = peak * learning_rate_factor(done, training.warmup) * rewarmed(index)
        rng = torch.Generator().manual_seed(
            derive(study.study.seed, place.site, "round", place.round_number, "step", index)
        )
        batches = _micro_batches(plan[index], data.images, viewer, method, rng, fabric)
        if (outcome := step(batches, sizes[index])) is not None:
            outcomes.append(outcome)
        method.after_step((place.round_number - 1 + (index + 1) / len(plan)) / rounds)
        progress.advance(index + 1, _words(outcomes[-1]) if outcomes else "")
        if keeps and (index + 1) % training.checkpoint_steps == 0 and index + 1 < len(plan):
            _keep(method, optimizer, place, index + 1, outcomes)
    if keeps and place.checkpoint:
        place.checkpoint.unlink(missing_ok=True)
    return _of_round(outcomes, time.monotonic() - started)


def _of_round(outcomes: list[StepOutcome], seconds: float) -> RoundOutcome:
    """Return the means over steps; of nothing but skipped ones, they are what those told, and not finite."""
    taken = [one for one in outcomes if not one.was_skipped] or outcomes

    def means(told: list[dict[str, float]]) -> dict[str, float]:
        return {name: statistics.fmean(one[name] for one in told) for name in told[0]}

    return RoundOutcome(
        statistics.fmean(one.loss for one in taken),
        means([one.parts for one in taken]),
        means([one.health for one in taken]),
        statistics.fmean(one.gradient_norm for one in taken),
        len(outcomes),
        sum(one.was_skipped for one in outcomes),
        seconds,
    )


def _words(outcome: StepOutcome) -> str:
    numbers = {"loss": outcome.loss, **outcome.parts, **outcome.health}
    return ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())


def _micro_batches(
    draws: StepDraws, images: Stored, viewer: Viewer, method: SSLMethod, rng: torch.Generator, fabric: Fabric
) -> Iterator[MicroBatch]:
    for batch in draws:
        share = Share(fabric.global_rank, fabric.world_size, len(batch.rows))
        mine = slice(share.rank, None, share.processes)
        origins = None if batch.origins is None else batch.origins[mine]
        stored = cut(images, batch.rows[mine], origins, viewer.data.store_size)
        views = viewer(to_unit(stored, fabric.device), rng, share)
        numbers = {
            name: share.of(drawn).to(fabric.device)
            for name, drawn in method.draw(len(batch.rows), rng).items()
        }
        # Of the whole batch: who compares all images knows whose each of them is.
        patients = torch.from_numpy(batch.patients).to(fabric.device)
        yield MicroBatch(views._replace(patients=patients), numbers, len(stored))


def _keep(
    method: SSLMethod,
    optimizer: torch.optim.Optimizer,
    place: RoundPlace,
    next_step: int,
    outcomes: list[StepOutcome],
) -> None:
    assert place.checkpoint is not None
    save_state(
        place.checkpoint,
        {
            "format": _FORMAT,
            "round": place.round_number,
            "start": place.start,
            "next_step": next_step,
            "outcomes": [asdict(outcome) for outcome in outcomes],
            "method": method.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
    )


def _restore_checkpoint(
    method: SSLMethod, optimizer: torch.optim.Optimizer, place: RoundPlace, steps: int
) -> tuple[int, list[StepOutcome]]:
    """Load this round's step checkpoint, if there is one; give the next step and the steps' outcomes so far."""
    state = load_state(place.checkpoint) if place.checkpoint else None
    wanted = {"format": _FORMAT, "round": place.round_number, "start": place.start}
    if state is None or any(state.get(key) != value for key, value in wanted.items()):
        return 0, []
    assert state["next_step"] < steps, "the same start and round have the same plan"
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    return state["next_step"], [StepOutcome(**outcome) for outcome in state["outcomes"]]
