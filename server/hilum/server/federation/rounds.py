"""The round loop: ours, so that it checkpoints, resumes, waits with a deadline, and gives one sum for all orders."""

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from flwr.serverapp import Grid

from hilum.common import records
from hilum.common.errors import FederationError
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest, get_federated, get_frozen, start_sha256
from hilum.common.progress import Progress
from hilum.common.training_health import ON_COLLAPSE, has_collapsed, health_warnings
from hilum.common.weights import FlatWeights, Manifest, apply_update
from hilum.server.federation.admission import Terms, running_bound
from hilum.server.federation.aggregate import aggregate
from hilum.server.federation.aggregators.registry import build_aggregator
from hilum.server.federation.best import Best, is_better, loss_scores
from hilum.server.federation.collect import collect
from hilum.server.federation.exchange import BoundedGrid, Presence
from hilum.server.federation.greeting import Greeter
from hilum.server.federation.roster import STRIKES, Roster, code_of
from hilum.server.federation.round_updates import HeldUpdates, RoundTally, admit_round
from hilum.server.federation.run_spec import RunSpec
from hilum.server.federation.selection import collect_scores
from hilum.server.federation.store import RoundRecord, RunState

_log = logging.getLogger(__name__)
_ENVELOPE_BYTES = 64 * 1024  # what is around the numbers of a reply
OnRound = Callable[[RoundRecord], None]


class Federation:
    """One run on one grid: its rounds, and who takes part in them.

    Args:
        grid: Flower's grid.
        work: What to do.

    Attributes:
        manifest: Of the federated parts.
        done: The rounds so far, those of a run that is resumed included.
        roster: The sites.
        presence: Who is lost.
    """

    def __init__(self, grid: Grid, work: RunSpec) -> None:
        self.grid, self.work = grid, work
        method = build_method(work.study)
        self.manifest: Manifest = federated_manifest(method)
        self._frozen = get_frozen(method)
        first = get_federated(method) if work.start is None else work.start.weights
        self.done = work.store.load(self.manifest) or RunState(first, ())
        self.roster = Roster(work.order.sites, self.done.rounds)
        self.presence = Presence(grid, self._name_of)
        self._greeter = Greeter(grid, work.signed, self.roster)
        self.limit_replies(records.TRAIN, 4 * self.manifest.size)

    def gather(self) -> None:
        """Wait until the study's sites have greeted, or for a while and then for a quorum of them.

        Raises:
            FederationError: If too few came, or the run is to stop.
        """
        self._wait_for_greetings(for_all=True)
        names = ", ".join(site.name for site in self.roster.present)
        so_far = f"goes on after round {len(self.done.rounds)}" if self.done.rounds else "begins"
        _log.info("run %s %s with %s", self.work.order.run, so_far, names)

    def run_rounds(self, progress: Progress, on_round: OnRound) -> RunState:
        """Run the rounds that are not done yet.

        Args:
            progress: Told after each round.
            on_round: Told each round's record, earlier rounds of a resumed run included.

        Raises:
            FederationError: If a round does not reach its quorum, or the run is to stop; the rounds before are kept.
        """
        for record in self.done.rounds:
            on_round(record)
        progress.advance(len(self.done.rounds))
        if self.done.rounds:
            self._check_collapse(self.done.rounds[-1])
        for number in range(len(self.done.rounds) + 1, self.work.study.federation.rounds + 1):
            self.done = self._one_round(number)
            self.work.store.save(self.done, self.manifest)
            record = self.done.rounds[-1]
            on_round(record)
            _tell(record, self.work.study.federation.rounds)
            progress.advance(number, f"loss {_losses(record)}")
            self._check_collapse(record)
            self._greeter.begin_turn()
        return self.done

    def _check_collapse(self, record: RoundRecord) -> None:
        """End here if the encoder has collapsed at most sites, and the study stops then.

        Raises:
            FederationError: If it does; the round is kept.
        """
        collapsed = [name for name, facts in record.sites.items() if has_collapsed(facts)]
        if self.work.study.training.stop_on_collapse and 2 * len(collapsed) > len(record.sites):
            raise FederationError(
                f"the encoder has collapsed in round {record.round} at {', '.join(collapsed)}, and training.stop_on_collapse is true; "
                f"{ON_COLLAPSE}"
            )

    def check_stop(self) -> None:
        """End here if the run is to stop.

        Raises:
            FederationError: If it is.
        """
        if self.work.stop.is_set():
            raise FederationError(
                f"the run was asked to stop, after {len(self.done.rounds)} rounds; go on with it by --resume"
            )

    def limit_replies(self, message_type: str, size_bytes: int) -> None:
        """Tell a grid that can refuse replies before it holds them how large one may be."""
        if isinstance(self.grid, BoundedGrid):
            self.grid.reply_limit(message_type, size_bytes + _ENVELOPE_BYTES)

    def _one_round(self, number: int) -> RunState:
        """Collect the sites' answers, admit those that may count, and aggregate them.

        One update at a time goes all the way: each stage asks the one before for the next.
        """
        self._wait_for_greetings(for_all=False)
        started = time.monotonic()
        study, base, sites = self.work.study, self.done.weights, self.roster.present
        tally = RoundTally(number)
        terms = self._terms(number)
        most_weight = terms.example_cap * len(self.roster.names)
        with HeldUpdates(self.work.store) as held:
            answers = collect(
                self.grid,
                sites,
                records.pack_training_request(self.work.signed, number, base),
                federation=study.federation,
                enough=lambda: len(tally.trained) >= study.quorum,
                poll_s=self.work.pace.poll_s,
                presence=self.presence,
                on_poll=self._on_poll,
            )
            found = aggregate(
                build_aggregator(study.federation.aggregator, most_weight),
                self.manifest,
                self.done.aggregator,
                admit_round(answers, terms, held, tally),
                quorum=study.quorum,
            )
        absences = self.roster.absences(site.name for site in sites)
        failures = dict(sorted({**tally.failures, **absences}.items()))
        if found is None:
            raise _too_few(number, len(tally.trained), study.quorum, failures)
        record = RoundRecord(
            round=number,
            wall_seconds=round(time.monotonic() - started, 3),
            bytes_down=base.nbytes * tally.sent,
            bytes_up=tally.bytes_up,
            expected=len(self.roster.names),
            contributed=len(tally.trained),
            sites=dict(sorted(tally.trained.items())),
            failures=failures,
            suspended=self.roster.close_round(number, failures),
            update_norm=float(np.linalg.norm(found.change)),
        )
        weights = apply_update(base, found.change)
        record, best = self._scored(record, weights)
        return RunState(weights, (*self.done.rounds, record), found.state, best)

    def _scored(self, record: RoundRecord, weights: FlatWeights) -> tuple[RoundRecord, Best | None]:
        """Score what a round gave, if the study picks a round, and compare it with the best before.

        Raises:
            FederationError: If there is no score.
        """
        study = self.work.study
        if study.training.select == "none":
            return record, None
        if study.training.select == "loss":
            scores = loss_scores(record.sites)
        else:
            scores = collect_scores(
                self.grid,
                [site for site in self.roster.present if site.name in record.sites],
                records.pack_training_request(self.work.signed, record.round, weights),
                record.round,
                study=study,
                poll_s=self.work.pace.poll_s,
                presence=self.presence,
                on_poll=self._on_poll,
            )
        best = self.done.best
        if is_better(scores, best.scores if best else None):
            best = Best(record.round, scores, weights)
        return replace(record, score=statistics.fmean(scores.values()), scores=scores), best

    def _terms(self, number: int) -> Terms:
        """Return what a round's updates are held against."""
        study = self.work.study
        return Terms(
            round_number=number,
            base_sha256=start_sha256(self.manifest, self.done.weights, self._frozen),
            size=self.manifest.size,
            max_norm=study.privacy.max_update_norm,
            norm_bound=running_bound(self.done.rounds, study.federation.norm_ratio),
            norm_ratio=study.federation.norm_ratio,
            example_cap=study.federation.example_cap,
        )

    def _on_poll(self) -> None:
        self.check_stop()
        self._greeter.step()

    def _wait_for_greetings(self, *, for_all: bool) -> None:
        self._greeter.wait(
            self.work.study.quorum,
            seconds=self.work.pace.gather_s,
            poll_s=self.work.pace.poll_s,
            on_poll=self.check_stop,
            for_all=for_all,
        )

    def _name_of(self, node_id: int) -> str:
        names = {site.node_id: site.name for site in self.roster.present}
        return names.get(node_id, "a site")


def _too_few(number: int, found: int, quorum: int, failures: Mapping[str, str]) -> FederationError:
    """Say why a round misses its quorum, and what helps."""
    why = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    late = any(code_of(reason) == "late" for reason in failures.values())
    longer = "give a longer federation.deadline_s, which --resume takes, or " if late else ""
    return FederationError(
        f"round {number} has {found} of the {quorum} updates that it needs ({why}); "
        f"{longer}mend the cause and go on with --resume"
    )


def _tell(record: RoundRecord, rounds: int) -> None:
    """Log the canonical line of a round, and one for each site that lost its place in it."""
    missing = ", ".join(f"{name}: {code_of(why)}" for name, why in record.failures.items())
    _log.info(
        "round %d of %d: %d of %d sites, %.1f s, norm %.4g, loss %s%s",
        record.round,
        rounds,
        record.contributed,
        record.expected,
        record.wall_seconds,
        record.update_norm,
        _losses(record),
        f"; without {missing}" if missing else "",
    )
    for name, facts in record.sites.items():
        for warning in health_warnings(facts):
            _log.warning("round %d: %s at %s: %s", record.round, warning.kind, name, warning.words)
    for name in record.suspended:
        _log.warning("%s is suspended for the rest of the study: it was refused %d times", name, STRIKES)


def _losses(record: RoundRecord) -> str:
    return ", ".join(f"{name} {facts['loss']:.4f}" for name, facts in record.sites.items())
