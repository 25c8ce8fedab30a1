"""A site's part in a round, and the same without any federation.

A federation of one site and local pre-training are one computation: both move the weights by the same update.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from hilum.client.data.site_data import SiteData
from hilum.client.pretraining.checkpoint import LocalParts, load_state, save_state
from hilum.client.pretraining.device import Device, make_fabric
from hilum.client.pretraining.fitting import release, what_fits
from hilum.client.pretraining.group import Group, train_in_group
from hilum.client.pretraining.health import encoder_health, start_health
from hilum.client.pretraining.loop import RoundOutcome, RoundPlace, train_round
from hilum.client.pretraining.several import train_on_several
from hilum.common.config import StudyConfig
from hilum.common.errors import RequestRefused, RunError
from hilum.common.methods import SSLMethod, build_method
from hilum.common.methods.parts import (
    federated_manifest,
    get_federated,
    get_frozen,
    get_kept,
    receive,
    start_sha256,
)
from hilum.common.progress import NullProgress, Progress
from hilum.common.start import seeded_start
from hilum.common.training_health import ON_COLLAPSE, has_collapsed, health_warnings
from hilum.common.weights import FlatWeights, apply_update, difference, limit_norm

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SiteUpdate:
    """What a round gives.

    Attributes:
        update: (P,), the difference from what was received.
        base_sha256: Of what was received.
        outcome: How the training went.
        health: Whether the encoder still learns, by the names of `hilum.common.training_health`.
    """

    update: FlatWeights = field(repr=False)
    base_sha256: str
    outcome: RoundOutcome
    health: dict[str, float]


@dataclass(frozen=True)
class Alone:
    """What pre-training without a federation gives.

    Attributes:
        weights: (P,) the federated parts after the round that was picked.
        round: Which one that is.
        last: (P,) those after the last round.
    """

    weights: FlatWeights = field(repr=False)
    round: int
    last: FlatWeights = field(repr=False)


Score = Callable[[SiteUpdate, FlatWeights], float]
"""Tells how good the weights after a round are; what is not a number never wins."""


def site_round(
    data: SiteData,
    study: StudyConfig,
    base: FlatWeights,
    round_number: int,
    folder: Path,
    *,
    device: Device = "auto",
    devices: int = 1,
    group: Group | None = None,
    progress: Progress | None = None,
) -> SiteUpdate:
    """Train one round from `base`.

    Args:
        data: The site's images.
        study: The study.
        base: (P,) the weights received.
        round_number: From 1.
        folder: Where the site keeps this run's local parts and step checkpoint.
        device: Where to train.
        devices: On how many devices of that kind.
        group: Processes on several machines, which then train.
        progress: Told after each step.
    """
    fabric = make_fabric(device, study.training.precision, study.training.threads)
    method = build_method(study)
    begun = start_health(method.encoder, data, study, fabric, folder) if round_number > 1 else None
    local = LocalParts(folder)
    receive(method, base, local.before(round_number))
    begun = begun or start_health(method.encoder, data, study, fabric, folder)
    base_sha256 = start_sha256(federated_manifest(method), base, get_frozen(method))
    start = f"{base_sha256} {data.content_sha256}"
    place = RoundPlace(data.name, round_number, start, folder / "step.pt")
    told = progress or NullProgress()
    outcome = _train(method, data, study, place, fabric, told, device=device, devices=devices, group=group)
    health = {
        **encoder_health(method.encoder, data, study, fabric),
        **begun,
        "gradient_norm": outcome.gradient_norm,
        "skipped_share": outcome.skipped / outcome.steps,
    }
    method.cpu()
    update = difference(get_federated(method), base)
    if study.privacy.max_update_norm is not None:
        update = limit_norm(update, study.privacy.max_update_norm)
    if kept := get_kept(method):
        local.save(round_number, kept)
    return SiteUpdate(update, base_sha256, outcome, health)


def _train(
    method: SSLMethod,
    data: SiteData,
    study: StudyConfig,
    place: RoundPlace,
    fabric: Fabric,
    progress: Progress,
    *,
    device: Device,
    devices: int,
    group: Group | None,
) -> RoundOutcome:
    """Train a round, on one device or several; where the device's memory does not hold a step, say which batch it would hold.

    Raises:
        RequestRefused: `machine`, with those words.
    """
    try:
        if group is not None:
            return train_in_group(method, data, study, place, progress, device=device, group=group)
        if devices > 1:
            return train_on_several(method, data, study, place, progress, device=device, devices=devices)
        return train_round(method, data, study, place, fabric, progress)
    except torch.OutOfMemoryError:
        pass  # what follows is outside of the handler, for the error holds the step's tensors
    method.cpu()
    release(fabric)
    if group is not None:
        raise RequestRefused(
            "machine",
            f"training.batch_size = {study.training.batch_size} is too large here: a device of the group does not hold its share of a "
            "step; write a smaller one, and a larger training.accumulate for a step of as many images",
        )
    raise RequestRefused(
        "machine",
        f"training.batch_size = {study.training.batch_size} is too large here: {what_fits(study, fabric, devices)}",
    )


def pretrain_alone(
    data: SiteData,
    study: StudyConfig,
    folder: Path,
    *,
    start: FlatWeights | None = None,
    device: Device = "auto",
    devices: int = 1,
    group: Group | None = None,
    score: Score | None = None,
    progress: Progress | None = None,
    steps: Progress | None = None,
    stops: bool = False,
) -> Alone:
    """Pre-train without a federation, with the same schedule; a second call goes on from the last full round.

    Args:
        data: The site's images.
        study: The study.
        folder: Where the last full round is kept.
        start: (P,) what the first round starts from; what the study's seed gives, if none.
        device: Where to train.
        devices: On how many devices of that kind.
        group: Processes on several machines, which then train.
        score: What picks the round (`hilum.client.evaluation.selection.scorer`); None takes the last.
        progress: Told after each round.
        steps: Told after each step; it may stop the work.
        stops: Whether a collapse ends it, where the study says so: an arm that others are compared with goes on.

    Raises:
        RunError: If the study starts from a file, and no start is given; or if a collapse ends it.
    """
    weights = best = seeded_start(study) if start is None else start
    done, best_round, best_score = 0, 0, -math.inf
    kept = load_state(folder / "rounds.pt")
    if kept is not None and kept["content"] == data.content_sha256 and "best_round" in kept:
        done, weights = kept["round"], kept["weights"].numpy()
        best, best_round, best_score = kept["best"].numpy(), kept["best_round"], kept["best_score"]
        _check_collapse(study, done, collapsed=kept.get("collapsed", False), stops=stops)
    for round_number in range(done + 1, study.federation.rounds + 1):
        sent = site_round(
            data,
            study,
            weights,
            round_number,
            folder,
            device=device,
            devices=devices,
            group=group,
            progress=steps,
        )
        weights = apply_update(weights, sent.update)
        found = best_score if score is None else score(sent, weights)
        if score is None or found > best_score:
            best, best_round, best_score = weights, round_number, found
        kept = {
            "round": round_number,
            "content": data.content_sha256,
            "weights": torch.from_numpy(weights),
            "best": torch.from_numpy(best),
            "best_round": best_round,
            "best_score": best_score,
            "collapsed": has_collapsed(sent.health),
        }
        save_state(folder / "rounds.pt", kept)
        for warning in health_warnings(sent.health):
            _log.warning("%s, round %d: %s", data.name, round_number, warning.words)
        if progress:
            progress.advance(round_number, f"loss {sent.outcome.loss:.4f}")
        _check_collapse(study, round_number, collapsed=kept["collapsed"], stops=stops)
    return Alone(np.asarray(best, np.float32), best_round, np.asarray(weights, np.float32))


def _check_collapse(study: StudyConfig, round_number: int, *, collapsed: bool, stops: bool) -> None:
    """End here if the encoder has collapsed and the study stops then; asked again, it ends here again."""
    if collapsed and stops and study.training.stop_on_collapse:
        raise RunError(
            f"the encoder has collapsed in round {round_number}, and training.stop_on_collapse is true; {ON_COLLAPSE}"
        )
