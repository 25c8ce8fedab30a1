"""A whole study, from the first greeting to the results: what the ServerApp does, whichever grid it runs on."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp import Grid

from hilum.common import records
from hilum.common.config import StudyConfig
from hilum.common.environment import describe_environment
from hilum.common.errors import UpdateRefused
from hilum.common.export import Made, write_encoder
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest
from hilum.common.progress import Progress, Quiet
from hilum.common.signing import SignedStudy, StudyOrder
from hilum.common.weights import FlatWeights
from hilum.server.events import RoundEvents
from hilum.server.federation.exchange import Answer, exchange
from hilum.server.federation.rounds import Pace, Site, content_of, gather, run_rounds
from hilum.server.federation.store import RunStore
from hilum.server.results import build_results

Stage = Callable[[str, int], AbstractContextManager[Progress]]


def _no_stage(_title: str, _total: int) -> AbstractContextManager[Progress]:
    return nullcontext(Quiet())


@dataclass(frozen=True)
class Assignment:
    """What a ServerApp is to do.

    Attributes:
        signed: The study as every site gets it.
        order: What it says.
        store: The run directory.
        pace: How to wait.
        more_arms: Gives weights of arms that only a simulation has; called once, after the rounds.
        stage: Opens a progress display for a stage of so many units.
    """

    signed: SignedStudy
    order: StudyOrder
    store: RunStore
    pace: Pace
    more_arms: Callable[[], Mapping[str, FlatWeights]] = field(default=dict)
    stage: Stage = _no_stage

    @property
    def study(self) -> StudyConfig:
        """The study."""
        return self.order.study


def conduct(grid: Grid, work: Assignment) -> dict[str, Any]:
    """Run a study on a grid and write its run directory.

    Returns:
        What `results.json` holds.

    Raises:
        FederationError: If the sites do not come, or a round misses its quorum.
    """
    study, store = work.study, work.store
    store.write("environment.json", describe_environment())
    sites = gather(grid, study, work.signed, work.pace)
    with (
        work.stage("federated pre-training", study.federation.rounds) as progress,
        RoundEvents(store.folder / "tensorboard") as events,
    ):
        done = run_rounds(grid, work.signed, study, sites, store, work.pace, progress, events.write)
    manifest = federated_manifest(build_method(study))
    made = Made(rounds=len(done.rounds), sites=len(sites))
    write_encoder(store.folder / "encoder", study, manifest, done.weights, made)
    evaluations, notes = _evaluate(grid, work, sites, done.weights)
    results = build_results(study, done, sites, evaluations, notes)
    store.write("results.json", results)
    return results


def _evaluate(
    grid: Grid, work: Assignment, sites: list[Site], weights: FlatWeights
) -> tuple[list[dict[str, Any]], list[str]]:
    """Ask every site to measure the encoder. A site that can't is noted; the run is not lost for it."""
    study = work.study
    if study.tasks.classification is None:
        return [], ["the study names no task, so nothing was evaluated"]
    arms = {"federated": weights, **work.more_arms()}
    wanted: dict[str, FlatWeights] = {arm: flat for arm, flat in arms.items() if arm in study.evaluation.arms}
    request = records.pack_request(work.signed, weights=wanted)
    by_node = {site.node_id: site.name for site in sites}
    found: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    requests = {node: lambda: request for node in by_node}
    with work.stage("evaluation at each site", len(sites)) as progress:
        answers = exchange(
            grid,
            requests,
            records.EVALUATE,
            deadline_s=study.evaluation.deadline_s,
            poll_s=work.pace.poll_s,
        )
        for answer in answers:
            name = by_node[answer.node_id]
            try:
                found[name] = _evaluation_of(answer, name)
            except UpdateRefused as refused:
                notes.append(f"{name} was not evaluated: {refused.detail}")
            progress.advance(len(found) + len(notes), name)
    return [found[name] for name in sorted(found)], sorted(notes)


def _evaluation_of(answer: Answer, name: str) -> dict[str, Any]:
    """What a site measured.

    Raises:
        UpdateRefused: If it did not answer, or its results are malformed or another site's.
    """
    reply = records.unpack_evaluation_reply(content_of(answer))
    if reply.site != name:
        raise UpdateRefused("wrong_site", "the results are another site's")
    return dict(reply.evaluation)
