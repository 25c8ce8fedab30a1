"""The content of `results.json`."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain
from typing import Any

from hilum.common.config import StudyConfig
from hilum.common.config.study import MIN_PATIENTS
from hilum.common.encoders.warm_start import WarmStartReport
from hilum.common.results_table import Evaluation
from hilum.common.training_health import health_warnings
from hilum.common.verdict import judge_tasks
from hilum.server.federation.best import Best
from hilum.server.federation.roster import STRIKES, Roster, code_of
from hilum.server.federation.store import RunState

RESULTS_VERSION = 4


def build_results(
    study: StudyConfig,
    done: RunState,
    roster: Roster,
    evaluations: list[Evaluation],
    notes: list[str],
    start: WarmStartReport | None = None,
) -> dict[str, Any]:
    """Return the content of `results.json`.

    Args:
        study: The study.
        done: All rounds.
        roster: The study's sites.
        evaluations: Each site's rows and comparisons, checked.
        notes: What a reader must know: who is missing where, and why.
        start: What was taken from the file that the study starts from, if there is one.
    """
    privacy = {
        "unit": "none",
        "mechanism": study.privacy.mechanism,
        "epsilon": None,
        "delta": None,
        "max_update_norm": study.privacy.max_update_norm,
        "min_patients": study.privacy.min_patients,
    }
    results = {
        "version": RESULTS_VERSION,
        "study": study.study.name,
        "seed": study.study.seed,
        "start": None if start is None else start.summary(),
        "sites": [_site(name, done, roster) for name in roster.names],
        "rounds": [asdict(record) for record in done.rounds],
        "privacy": dict.fromkeys(roster.names, privacy),
        "evaluation": [asdict(row) for found in evaluations for row in found.rows],
        "comparisons": [asdict(one) for found in evaluations for one in found.comparisons],
        "notes": notes,
    }
    verdicts = judge_tasks([results], study.evaluation, study.tasks)
    return {**results, "verdicts": [asdict(verdict) for verdict in verdicts]}


def run_notes(study: StudyConfig, done: RunState, roster: Roster) -> list[str]:
    """Return what a reader must know of a run: who is missing in which rounds, and whether the threshold was lifted."""
    notes = list(roster.strangers)
    for name in roster.names:
        missing: dict[str, list[int]] = defaultdict(list)
        for record in done.rounds:
            if name in record.failures:
                missing[code_of(record.failures[name])].append(record.round)
        if missing:
            why = "; ".join(f"{code} in {in_words(rounds)}" for code, rounds in missing.items())
            rounds = len(list(chain(*missing.values())))
            notes.append(f"{name} is missing in {rounds} of {len(done.rounds)} rounds: {why}")
        if name in roster.suspended:
            notes.append(
                f"{name} was suspended after round {roster.suspended[name]}: its part was refused {STRIKES} times"
            )
    if done.best is not None:
        notes.append(_selection_note(done.best, done, study))
        notes += _unscored(done, roster)
    notes += _zero_updates(done, roster)
    notes += _health_notes(done, roster)
    if study.privacy.min_patients < MIN_PATIENTS:
        notes.append(
            f"the threshold of patients was lifted from {MIN_PATIENTS} to {study.privacy.min_patients} "
            "(privacy.min_patients): results of so few may tell of single patients"
        )
    return notes


def _zero_updates(done: RunState, roster: Roster) -> list[str]:
    notes = []
    still = [record.round for record in done.rounds if record.update_norm == 0]
    if still and len(still) == len(done.rounds):
        notes.append(
            "no round moved a weight: the encoder is the untrained start, whatever it is called below"
        )
    elif still:
        notes.append(f"the encoder did not move in {in_words(still)}: the change of the round was zero")
    for name in roster.names:
        zero = [one.round for one in done.rounds if one.sites.get(name, {}).get("norm") == 0]
        if zero:
            notes.append(f"{name} sent an update of zero in {in_words(zero)}: its training moved no weight")
    return notes


def _selection_note(best: Best, done: RunState, study: StudyConfig) -> str:
    last = done.rounds[-1]
    words = (
        "the least training loss"
        if study.training.select == "loss"
        else "the best score on validation patients"
    )
    if best.round == last.round:
        return f"the encoder is that of the last round, {last.round}, which has {words}"
    assert last.score is not None, "every round has one"
    return (
        f"the encoder is that after round {best.round} of {last.round}, which has {words} ({abs(best.score):.4g}, the last round "
        f"{abs(last.score):.4g}); the last one is in encoder-last"
    )


def _unscored(done: RunState, roster: Roster) -> list[str]:
    """Return who trained in rounds that others scored alone."""
    notes = []
    for name in roster.names:
        rounds = [
            one.round for one in done.rounds if one.scores and name in one.sites and name not in one.scores
        ]
        if rounds:
            notes.append(f"{name} gave no score that counts in {in_words(rounds)}; the server's log says why")
    return notes


def _health_notes(done: RunState, roster: Roster) -> list[str]:
    """Return what the rounds' health warned of: a line for each site and kind, with the words of its last round."""
    notes = []
    for name in roster.names:
        warned: dict[str, tuple[list[int], str]] = {}
        for record in done.rounds:
            for warning in health_warnings(record.sites.get(name, {})):
                rounds, _ = warned.get(warning.kind, ([], ""))
                warned[warning.kind] = ([*rounds, record.round], warning.words)
        notes += [
            f"{kind} at {name} in {in_words(rounds)}: {words}" for kind, (rounds, words) in warned.items()
        ]
    return notes


def in_words(rounds: Iterable[int]) -> str:
    """Write rounds as people write them: `round 4`, `rounds 1 to 3, 5`."""
    spans: list[list[int]] = []
    for number in rounds:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    words = ", ".join(f"{first} to {last}" if first < last else f"{first}" for first, last in spans)
    return f"round{'s' if len(spans) > 1 or spans[0][0] < spans[0][1] else ''} {words}"


def _site(name: str, done: RunState, roster: Roster) -> dict[str, Any]:
    """Return a site's line; `examples` is the band that it gave, None if it never did."""
    greeted = [site.examples for site in roster.present if site.name == name]
    trained = [int(record.sites[name]["examples"]) for record in done.rounds if name in record.sites]
    return {
        "name": name,
        "examples": next(iter([*greeted, *reversed(trained)]), None),
        "rounds": len(trained),
        "suspended": roster.suspended.get(name),
    }
