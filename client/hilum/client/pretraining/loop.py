"""One round of self-supervised training at one site.

Shapes: n rows of a micro-batch, C channels, *S space.

The state of a round is the weights, the optimizer and the number of the next step; every random number of a step is derived
from (seed, site, round, step). So a round that was killed goes on from its last step checkpoint and ends with the
bits that it would have had. The optimizer starts from nothing in each round: its moments belong to weights that the
aggregation has since moved.
"""

import statistics
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric

from hilum.client.data.prepared import Stored, cut, cut_shape
from hilum.client.data.site_data import SiteData
from hilum.client.pretraining.compiling import LateCompiler
from hilum.client.pretraining.determinism import determinism
from hilum.client.pretraining.device import lay_out
from hilum.client.pretraining.mechanisms import MECHANISMS
from hilum.client.pretraining.optimizer import make_optimizer
from hilum.client.pretraining.prefetch import Gathering, Staged, prefetched
from hilum.client.pretraining.sampling import Draws
from hilum.client.pretraining.schedule import learning_rate_factor, rewarmed, step_middle
from hilum.client.pretraining.step import MicroBatch, PendingOutcome, StepOutcome
from hilum.client.pretraining.step_checkpoint import StepCheckpoints
from hilum.client.views import Share, Viewer, random_numbers, unit_of
from hilum.common.config import StudyConfig
from hilum.common.encoders.blocks import recompute
from hilum.common.methods import SSLMethod
from hilum.common.progress import Progress
from hilum.common.seeding import derive

_BASE_IMAGES = 256  # what the base learning rate is stated for
_BEHIND = 2  # steps that a GPU may have still to do


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
        progress: Told after each step, of the newest whose outcome is known.
    """
    started = time.monotonic()
    training, rounds = study.training, study.federation.rounds
    lay_out(method, fabric)
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
    checkpoints = StepCheckpoints(
        place.checkpoint,
        place.round_number,
        place.start,
        training.checkpoint_minutes,
        writes=fabric.global_rank == 0,
    )
    start, known = checkpoints.restore(method, optimizer)
    outcomes = _Outcomes(known, behind=_BEHIND if fabric.device.type == "cuda" else 0)
    # Processes of several devices are new in each round.
    rounds_left = rounds - place.round_number + 1 if fabric.world_size == 1 else 1
    compiler = LateCompiler(method, study, fabric.device, len(plan) * rounds_left - start)
    gatherings = (_gathering(draws, data.images, viewer, fabric) for one in plan[start:] for draws in one)
    with (
        checkpoints,
        determinism(training.deterministic, fabric.device),
        prefetched(gatherings, fabric.device) as batches,
    ):
        for index in range(start, len(plan)):
            compiler.step_begins(index - start)
            done = (place.round_number - 1 + step_middle(index, len(plan))) / rounds
            for group in optimizer.param_groups:
                group["lr"] = peak * learning_rate_factor(done, training.warmup) * rewarmed(index)
            rng = random_numbers(
                fabric.device,
                derive(study.study.seed, place.site, "round", place.round_number, "step", index),
            )
            seen = (_micro_batch(next(batches), viewer, method, rng, fabric) for _ in plan[index])
            outcomes.add(step(seen, sizes[index]))
            method.after_step((place.round_number - 1 + (index + 1) / len(plan)) / rounds)
            progress.advance(index + 1, _words(outcomes.known[-1]) if outcomes.known else "")
            if checkpoints.is_due() and index + 1 < len(plan):
                checkpoints.keep(method, optimizer, index + 1, outcomes.all())
        found = outcomes.all()
    checkpoints.drop()
    return _of_round(found, time.monotonic() - started)


class _Outcomes:
    """What steps have told: of the last few of them not yet, so that the device always has a step to go on with."""

    def __init__(self, known: list[StepOutcome], behind: int) -> None:
        self.known, self._behind = known, behind
        self._pending: deque[PendingOutcome] = deque()

    def add(self, outcome: PendingOutcome | None) -> None:
        """Take a step's outcome, if it saw an image, and wait for that of an earlier one."""
        if outcome is not None:
            self._pending.append(outcome)
        while len(self._pending) > self._behind:
            self.known.append(self._pending.popleft().wait())

    def all(self) -> list[StepOutcome]:
        """Wait for all of them."""
        while self._pending:
            self.known.append(self._pending.popleft().wait())
        return self.known


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


def _gathering(draws: Draws, images: Stored, viewer: Viewer, fabric: Fabric) -> Gathering:
    """Return how this process's rows of a micro-batch are gathered."""
    mine = slice(fabric.global_rank, None, fabric.world_size)
    rows, origins = draws.rows[mine], None if draws.origins is None else draws.origins[mine]
    edge = viewer.data.store_size
    return Gathering(
        cut_shape(images, rows, origins, edge),
        lambda out: cut(images, rows, origins, edge, out),
        # Of the whole batch: who compares all images knows whose each of them is.
        draws.patients,
    )


def _micro_batch(
    staged: Staged, viewer: Viewer, method: SSLMethod, rng: torch.Generator, fabric: Fabric
) -> MicroBatch:
    batch = len(staged.patients)
    share = Share(fabric.global_rank, fabric.world_size, batch)
    views = viewer(unit_of(staged.stored), rng, share)
    numbers = {name: share.of(drawn).to(fabric.device) for name, drawn in method.draw(batch, rng).items()}
    return MicroBatch(views._replace(patients=staged.patients), numbers, len(staged.stored))
