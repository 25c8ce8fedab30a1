"""A whole study, from the first greeting to the results, on whichever grid it runs."""

import logging
import time
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from flwr.app import RecordDict
from flwr.serverapp import Grid

from hilum.common import records
from hilum.common.environment import describe_environment
from hilum.common.errors import UpdateRefused
from hilum.common.export import Provenance, write_encoder
from hilum.common.files import private_folder
from hilum.common.progress import Progress
from hilum.common.results_table import MAX_TABLE_BYTES, Evaluation, check_table
from hilum.common.start import write_report
from hilum.common.weights import FlatWeights
from hilum.server.federation.events import RoundEvents
from hilum.server.federation.exchange import Answer, Closing, content_of, exchange
from hilum.server.federation.results import build_results, run_notes
from hilum.server.federation.rounds import Federation
from hilum.server.federation.run_spec import Polling, RunSpec
from hilum.server.federation.store import RunStore

__all__ = ["Polling", "RunSpec", "run_study"]

_TELL_AGAIN_S = 30.0
_NAMES_TOLD = 5
_log = logging.getLogger(__name__)


def run_study(grid: Grid, work: RunSpec) -> dict[str, Any]:
    """Run a study on a grid and write its run directory.

    Returns:
        What `results.json` holds.

    Raises:
        FederationError: If the sites do not come, a round misses its quorum, or the run is to stop.
        RunError: If the run directory can't be written.
    """
    study, store = work.study, work.store
    report = work.start.report if work.start else None
    store.write("environment.json", describe_environment())
    if work.start is not None:
        with store.writing():
            write_report(store.folder, work.start)
    federation = Federation(grid, work)
    federation.gather()
    with (
        work.stage("federated pre-training", study.federation.rounds) as progress,
        RoundEvents(store.folder / "tensorboard") as events,
    ):
        done = federation.run_rounds(progress, events.write)
    contributed = {name for record in done.rounds for name in record.sites}
    last = Provenance(rounds=len(done.rounds), sites=len(contributed), start=report)
    made = last if done.best is None else replace(last, rounds=done.best.round)
    digest = _write(store, "encoder", federation, done.chosen, made)
    selection = None
    if done.best is not None:
        selection = {
            "by": study.training.select,
            "round": done.best.round,
            "score": done.best.score,
            "last_encoder_sha256": _write(store, "encoder-last", federation, done.weights, last),
        }
    evaluations, problems = _evaluate(federation)
    notes = [*run_notes(study, done, federation.roster), *store.notes, *problems]
    results = build_results(study, done, federation.roster, evaluations, notes, report)
    results["selection"] = selection
    store.write("results.json", results)
    _log.info("run %s is finished: %d rounds, encoder %s", work.order.run, len(done.rounds), digest)
    return results


def _write(store: RunStore, name: str, federation: Federation, weights: FlatWeights, made: Provenance) -> str:
    with store.writing():
        private_folder(store.folder / name)
        return write_encoder(store.folder / name, federation.work.study, federation.manifest, weights, made)


def _evaluate(federation: Federation) -> tuple[list[Evaluation], list[str]]:
    """Ask every site to measure the encoder. A site that can't is noted; the run is not lost for it."""
    work, study = federation.work, federation.work.study
    if not study.tasks.given:
        return [], ["the study names no task, so nothing was evaluated"]
    arms = {"federated": federation.done.chosen, **work.more_arms()}
    wanted: dict[str, FlatWeights] = {arm: flat for arm, flat in arms.items() if arm in study.evaluation.arms}
    sent = dict(wanted)
    if work.start is not None and work.order.sends_start:
        sent[records.START] = work.start.weights
    request = records.pack_request(work.signed, weights=sent)
    sites = {site.node_id: site.name for site in federation.roster.present}
    found: dict[str, Evaluation] = {}
    missing = federation.roster.absences(sites.values())
    federation.limit_replies(records.EVALUATE, MAX_TABLE_BYTES)
    _log.info("run %s: the sites measure the encoder", work.order.run)
    with work.stage("evaluation at each site", len(sites)) as progress:
        waiting = _Waiting(progress)

        def look() -> None:
            federation.check_stop()
            waiting.tell([name for name in sites.values() if name not in found and name not in missing])

        answers = exchange(
            federation.grid,
            {node_id: lambda: request for node_id in sites},
            records.EVALUATE,
            deadline_s=study.evaluation.deadline_s,
            poll_s=work.pace.poll_s,
            presence=federation.presence,
            closing=Closing(lambda: len(found) >= study.quorum, study.federation.return_s),
            on_poll=look,
        )
        for done, answer in enumerate(answers, 1):
            name = sites[answer.node_id]
            waiting.done = done
            try:
                found[name] = _table_of(answer, federation, name, wanted)
                _log.info("%s has sent its results", name)
            except UpdateRefused as refused:
                missing[name] = str(refused)
                _log.warning("no results of %s: %s", name, str(refused))
            progress.advance(done, name)
    notes = [f"{name} was not evaluated: {why}" for name, why in sorted(missing.items())]
    notes += [
        f"{name} measured no {task.kind}: its labels do not serve that task, as its own log says"
        for name, table in sorted(found.items())
        for task in study.tasks.given
        if task.kind not in {row.task for row in table.rows}
    ]
    if "centralised" in study.evaluation.arms and "centralised" not in wanted:
        notes.append("the arm centralised was not measured: only a simulation has all images in one place")
    return [found[name] for name in sorted(found)], notes


class _Waiting:
    """Tells now and then who is still at work: a measurement takes minutes, and ends in one answer a site.

    Attributes:
        done: How many sites have answered.
    """

    def __init__(self, progress: Progress) -> None:
        self.done = 0
        self._progress = progress
        self._began = self._told = time.monotonic()

    def tell(self, names: Collection[str]) -> None:
        """Tell, if it is time."""
        now = time.monotonic()
        if now - self._told < _TELL_AGAIN_S or not names:
            return
        self._told = now
        shown = ", ".join(list(names)[:_NAMES_TOLD]) + (", ..." if len(names) > _NAMES_TOLD else "")
        self._progress.advance(self.done, f"{shown} still measuring after {now - self._began:.0f} s")


def _table_of(answer: Answer, federation: Federation, name: str, sent: dict[str, FlatWeights]) -> Evaluation:
    """Return what a site measured, believed only where the study asked for it.

    Raises:
        UpdateRefused: If it did not answer, or its table is malformed, another site's, or not what was asked for.
    """
    content: RecordDict = content_of(answer)
    reply = records.unpack_evaluation_reply(content)
    if reply.site != name:
        raise UpdateRefused("wrong_site", "the results are another site's")
    table = Evaluation.from_json(reply.evaluation)
    check_table(table, federation.work.study, site=name, sent=sent)
    return table
