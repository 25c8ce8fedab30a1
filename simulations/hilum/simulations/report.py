"""`report.html`: one self-contained page from a run directory, and nothing but the run directory."""

import base64
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.common.config.resume import differences
from hilum.common.config.study import EvaluationSection
from hilum.common.config.tasks import METRICS, TasksSection
from hilum.common.errors import RunError
from hilum.common.files import read_json, write_text
from hilum.common.pages import pages_of
from hilum.common.participation import participation
from hilum.common.results_table import NOTE_WORDS
from hilum.common.verdict import Verdict, judge_tasks
from hilum.server.federation.results import RESULTS_VERSION
from hilum.simulations.charts import ARM_COLOURS, arms_chart, health_chart, loss_chart
from hilum.simulations.claims import claims_of

_PROTOCOL_WORDS = {
    "linear": "Linear probe: the encoder is frozen, a logistic regression is fitted",
    "frozen": "Frozen encoder: the task's head is trained on the site's labels",
    "lora": "Low-rank adapters: head and adapters are trained on the site's labels, the encoder's weights stay",
    "finetune": "Full fine-tuning: encoder and head are trained on the site's labels",
    "knn": "Nearest neighbours: nothing is trained",
}


_ARM_WORDS = {
    "federated": "the encoder of this run",
    "local": "pre-trained by each site alone for as many epochs",
    "centralised": "pre-trained on all training images in one place",
    "scratch": "trained on labels only",
    "random": "an untrained encoder",
    "raw": "regression on pixels",
}


def write_report(folder: Path, others: Sequence[Path] = ()) -> Path:
    """Build the report of a finished run.

    Args:
        folder: The run.
        others: Runs of the same study with other seeds: the verdict is over all of them, the rest of the page over this.

    Returns:
        The path of `report.html`.

    Raises:
        RunError: If a folder holds no finished run, or that of another study.
    """
    run = _read_run(folder)
    results, study_text = run.results, run.study_text
    verdicts = judge_runs(folder, others)
    page = (
        pages_of("hilum.simulations")
        .get_template("report.html.j2")
        .render(
            results=results,
            study=tomllib.loads(study_text),
            study_text=study_text,
            manifest=run.manifest,
            machine=run.machine,
            verdicts=verdicts,
            tasks=_tasks(results, verdicts, _judged_by(run)[0].label_fractions),
            participation=participation(results["rounds"]),
            note_words=NOTE_WORDS,
            losses=loss_chart(results["rounds"]),
            health=health_chart(results["rounds"]),
            previews=_previews(folder),
            totals=_totals(results),
            colours=ARM_COLOURS,
            claims=claims_of(results),
            arms=_arm_words(results),
        )
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def judge_runs(folder: Path, others: Sequence[Path] = ()) -> list[Verdict]:
    """Judge each task of a finished run, with others of the same study where there are; arguments and errors as of `write_report`."""
    run = _read_run(folder)
    runs = [run.results, *(_of_same_study(run, _read_run(other)) for other in others)]
    _need_own_seeds(runs)
    evaluation, tasks = _judged_by(run)
    return judge_tasks(runs, evaluation, tasks)


def _judged_by(run: "_Run") -> tuple[EvaluationSection, TasksSection]:
    """Return what of a run's study its report rests on; the rest may have keys that studies have no longer."""
    table = tomllib.loads(run.study_text)
    return (
        EvaluationSection.model_validate(table["evaluation"]),
        TasksSection.model_validate(table.get("tasks", {})),
    )


@dataclass(frozen=True)
class _Run:
    """What a page is made of."""

    results: dict[str, Any]
    manifest: dict[str, Any]
    machine: dict[str, Any]
    study_text: str


def _read_run(folder: Path) -> _Run:
    try:
        run = _Run(
            read_json(folder / "results.json"),
            read_json(folder / "encoder" / "manifest.json"),
            read_json(folder / "environment.json"),
            (folder / "study.resolved.toml").read_text(),
        )
    except FileNotFoundError:
        raise RunError(f"{folder} holds no finished run; give the folder that --out named") from None
    except ValueError as error:
        raise RunError(
            f"a file of the run {folder} is damaged ({type(error).__name__}); finish the run with --resume"
        ) from None
    if (version := run.results.get("version")) != RESULTS_VERSION:
        raise RunError(
            f"the results of {folder} have the form {version}, and this is a Hilum of form {RESULTS_VERSION}; build the report with the "
            "version that made the run"
        )
    return run


def _of_same_study(first: _Run, other: _Run) -> dict[str, Any]:
    """Return the other's results, once it is known that its seed (and name) alone is another."""
    ours, theirs = (tomllib.loads(run.study_text) for run in (first, other))
    different = sorted(
        {one.key.rpartition(".")[0] for one in differences(ours, theirs) if not one.key.startswith("study.")}
    )
    if different:
        raise RunError(
            f"the runs are of different studies: [{'], ['.join(different)}] differ; "
            "runs that are judged together differ in their seed alone"
        )
    return other.results


def _need_own_seeds(runs: Sequence[dict[str, Any]]) -> None:
    seeds = [run["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise RunError(
            f"two of the runs have one seed ({', '.join(map(str, seeds))}); runs that are judged together have seeds of their own"
        )


def _arm_words(results: dict[str, Any]) -> dict[str, str]:
    """Return the arms that were measured, in words."""
    measured = {row["arm"] for row in results["evaluation"]}
    return {arm: words for arm, words in _ARM_WORDS.items() if arm in measured}


def _totals(results: dict[str, Any]) -> dict[str, Any]:
    rounds = results["rounds"]
    return {
        "examples": sum(site["examples"] or 0 for site in results["sites"]),
        "up_mb": sum(record["bytes_up"] for record in rounds) / 1e6,
        "down_mb": sum(record["bytes_down"] for record in rounds) / 1e6,
        "seconds": sum(record["wall_seconds"] for record in rounds),
        "failures": sum(len(record["failures"]) for record in rounds),
    }


def _tasks(
    results: dict[str, Any], verdicts: Sequence[Verdict], shares: Sequence[float]
) -> list[dict[str, Any]]:
    """Return one section a task: its verdict, who has which of its labels, and its numbers by protocol."""
    return [
        {
            "name": verdict.task,
            "verdict": verdict,
            "metric": METRICS[verdict.metric],
            "labels": results.get("labels", {}).get(verdict.task),
            "protocols": _protocols(
                [row for row in results["evaluation"] if row["task"] == verdict.task], verdict.metric, shares
            ),
        }
        for verdict in verdicts
    ]


def _protocols(rows: Sequence[dict[str, Any]], primary: str, shares: Sequence[float]) -> list[dict[str, Any]]:
    """Return one section a protocol: a chart for each share of the labels, the verdict's first, and the whole table."""
    sections = []
    sites = sorted({row["site"] for row in rows})
    for protocol, words in _PROTOCOL_WORDS.items():
        here = [row for row in rows if row["protocol"] == protocol]
        if not here:
            continue
        charted = {
            share: [row for row in here if row["metric"] == primary and row["label_fraction"] == share]
            for share in shares
        }
        table = [
            {
                "share": share,
                "metric": metric,
                "arm": arm,
                "cells": [_find(here, site, share, metric, arm) for site in sites],
            }
            for metric in dict.fromkeys(row["metric"] for row in here)
            for share in shares
            for arm in ARM_COLOURS
            if any((row["label_fraction"], row["metric"], row["arm"]) == (share, metric, arm) for row in here)
        ]
        sections.append(
            {
                "name": protocol,
                "words": words,
                "charts": [
                    {"share": share, "svg": arms_chart(chosen, list(ARM_COLOURS), METRICS[primary])}
                    for share, chosen in charted.items()
                    if chosen
                ],
                "notes": sorted({row["note"] for row in here} - {""}),
                "sites": sites,
                "table": table,
            }
        )
    return sections


def _find(
    rows: list[dict[str, Any]], site: str, share: float, metric: str, arm: str
) -> dict[str, Any] | None:
    wanted = (site, share, metric, arm)
    return next((r for r in rows if (r["site"], r["label_fraction"], r["metric"], r["arm"]) == wanted), None)


def _previews(folder: Path) -> dict[str, Any]:
    captions = folder / "preview" / "captions.json"
    if not captions.exists():
        return {"captions": [], "sheets": []}
    sheets = [
        {"site": path.stem, "data": base64.b64encode(path.read_bytes()).decode()}
        for path in sorted((folder / "preview").glob("*.png"))
    ]
    return {"captions": read_json(captions), "sheets": sheets}
