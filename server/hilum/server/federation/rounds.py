"""The round loop: ours, so that it checkpoints, resumes, waits with a deadline, and gives one sum for all orders."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from hilum.common import records
from hilum.common.config import StudyConfig
from hilum.common.errors import FederationError, UpdateRefused
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest, get_federated
from hilum.common.progress import Progress
from hilum.common.refusals import REFUSALS
from hilum.common.signing import SignedStudy
from hilum.common.weights import FlatWeights, Manifest, apply_update, sha256_of
from hilum.server.federation.accumulator import FixedPointMean
from hilum.server.federation.admission import admit
from hilum.server.federation.exchange import Answer, exchange
from hilum.server.federation.store import Progressed, RoundRecord, RunStore

_log = logging.getLogger(__name__)
OnRound = Callable[[RoundRecord], None]


@dataclass(frozen=True)
class Site:
    """A site of this run."""

    name: str
    node_id: int
    examples: int


@dataclass(frozen=True)
class Pace:
    """How often to look for answers, and how long to wait for all sites to come online."""

    poll_s: float
    gather_s: float


def gather(grid: Grid, study: StudyConfig, signed: SignedStudy, pace: Pace) -> list[Site]:
    """Wait until the study's sites are online, and ask each who it is.

    Returns:
        The sites, by name.

    Raises:
        FederationError: If too few come in time, one refuses, or two have one name.
    """
    wanted, until = study.federation.sites, time.monotonic() + pace.gather_s
    nodes: list[int] = []
    while len(nodes) < wanted:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) < wanted:
            if time.monotonic() > until:
                raise FederationError(
                    f"{len(nodes)} of {wanted} sites came online within {pace.gather_s:g} s; "
                    "start the others, or lower federation.sites"
                )
            time.sleep(pace.poll_s)
    request = records.pack_request(signed)
    sites: list[Site] = []
    problems: list[str] = []
    requests = {node: lambda: request for node in nodes}
    for answer in exchange(grid, requests, records.HELLO, deadline_s=pace.gather_s, poll_s=pace.poll_s):
        try:
            hello = records.unpack_hello(content_of(answer))
            sites.append(Site(hello.site, answer.node_id, hello.examples))
        except UpdateRefused as refused:
            problems.append(str(refused))
    if len(sites) < wanted:
        raise FederationError("; ".join(problems))
    names = [site.name for site in sites]
    if len(set(names)) < len(names):
        raise FederationError(f"two sites have one name among {', '.join(sorted(names))}; names must differ")
    return sorted(sites, key=lambda site: site.name)


def run_rounds(
    grid: Grid,
    signed: SignedStudy,
    study: StudyConfig,
    sites: list[Site],
    store: RunStore,
    pace: Pace,
    progress: Progress,
    on_round: OnRound,
) -> Progressed:
    """Run the rounds that are not done yet.

    Args:
        grid: Flower's grid.
        signed: The study as every site gets it.
        study: The study.
        sites: From `gather`.
        store: Keeps a checkpoint after each round.
        pace: How to wait.
        progress: Told after each round.
        on_round: Told each round's record, earlier rounds of a resumed run included.

    Raises:
        FederationError: If a round does not reach its quorum; the rounds before it are kept.
    """
    method = build_method(study)
    manifest = federated_manifest(method)
    done = store.load(manifest) or Progressed(get_federated(method), ())
    for record in done.rounds:
        on_round(record)
    progress.advance(len(done.rounds))
    for number in range(len(done.rounds) + 1, study.federation.rounds + 1):
        weights, record = _one_round(grid, study, sites, signed, number, done.weights, manifest, pace)
        done = Progressed(weights, (*done.rounds, record))
        store.save(done, manifest)
        on_round(record)
        losses = ", ".join(f"{name} {facts['loss']:.4f}" for name, facts in record.sites.items())
        _log.info("round %d of %d: %s", number, study.federation.rounds, losses)
        progress.advance(number, f"loss {losses}")
    return done


def _one_round(
    grid: Grid,
    study: StudyConfig,
    sites: list[Site],
    signed: SignedStudy,
    number: int,
    base: FlatWeights,
    manifest: Manifest,
    pace: Pace,
) -> tuple[FlatWeights, RoundRecord]:
    started = time.monotonic()
    base_sha256 = sha256_of(manifest.unflatten(base))
    request = records.pack_training_request(signed, number, base)
    by_node = {site.node_id: site for site in sites}
    cap = study.federation.example_cap
    accumulator = FixedPointMean(manifest.size, cap * len(sites))
    trained: dict[str, dict[str, float]] = {}
    failures: dict[str, str] = {}
    bytes_up = bytes_down = 0
    requests: dict[int, Callable[[], RecordDict]] = {node: lambda: request for node in by_node}
    answers = exchange(
        grid, requests, records.TRAIN, deadline_s=study.federation.deadline_s, poll_s=pace.poll_s
    )
    for answer in answers:
        name = by_node[answer.node_id].name
        bytes_down += base.nbytes * answer.attempts
        try:
            reply = records.unpack_training_reply(content_of(answer))
            bytes_up += reply.size_bytes
            weight = admit(
                reply,
                site=name,
                round_number=number,
                base_sha256=base_sha256,
                size=manifest.size,
                max_norm=study.privacy.max_update_norm,
                example_cap=cap,
            )
        except UpdateRefused as refused:
            _log.warning("round %d: no update of %s: %s", number, name, refused)
            failures[name] = str(refused)
            continue
        accumulator.add(reply.update, weight)
        trained[name] = {
            "examples": reply.examples,
            "loss": reply.loss,
            "seconds": round(reply.seconds, 3),
            "attempts": answer.attempts,
        }
    if len(trained) < study.quorum:
        why = "; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items()))
        raise FederationError(
            f"round {number} has {len(trained)} of the {study.quorum} updates that it needs ({why}); "
            "mend the cause and go on with --resume"
        )
    change = accumulator.mean()
    record = RoundRecord(
        round=number,
        wall_seconds=round(time.monotonic() - started, 3),
        bytes_down=bytes_down,
        bytes_up=bytes_up,
        sites=dict(sorted(trained.items())),
        failures=dict(sorted(failures.items())),
        update_norm=float(np.linalg.norm(change)),
    )
    return apply_update(base, change), record


def content_of(answer: Answer) -> RecordDict:
    """The content of an answer.

    Raises:
        UpdateRefused: If there is none: the site was lost, or refused and said why.
    """
    if answer.content is None:
        raise UpdateRefused("lost", answer.problem)
    refusal = records.unpack_refusal(answer.content)
    if refusal is not None:
        raise UpdateRefused(refusal.code, REFUSALS[refusal.code])
    return answer.content
