"""`hilum site finetune`, and what `hilum site evaluate` does with a model that it left."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.common.cli import AsJson, print_json
from hilum.common.progress import NullProgress, progress_bar

if TYPE_CHECKING:
    from hilum.client.data.site_data import SiteData
    from hilum.client.evaluation.own_task import Begun, Tuned
    from hilum.common.config import StudyConfig
    from hilum.common.results_table import Evaluation

RESULTS_VERSION = 1
TaskFile = Annotated[Path, typer.Argument(help="The task file.", readable=False)]


def finetune(task: TaskFile, as_json: AsJson = False) -> None:
    """Fine-tune an encoder on this site's labels, measure it beside the baselines, and write the model and a page."""
    from hilum.client.evaluation.own_page import page_of
    from hilum.client.evaluation.own_task import begin, keep_split, lines_count, open_for_tuning, tune
    from hilum.client.tasks.model_files import write_model
    from hilum.common.config import load_site, load_task
    from hilum.common.files import write_json, write_text
    from hilum.common.output_folder import check_output_folder, written_at_once

    asked = load_task(task)
    where, out = load_site(asked.finetune.site), asked.finetune.out
    check_output_folder(out)
    begun = begin(asked)
    data = open_for_tuning(where, begun)
    tell_labels(begun.study, data)
    with progress_bar("fine-tuning", lines_count(begun.mode)) as progress:
        tuned = tune(data, begun, device=where.compute.device, progress=progress, steps=NullProgress())
    with written_at_once(out) as folder:
        sha256 = write_model(folder, tuned.model)
        results = _results(data, begun, tuned, sha256)
        write_json(folder / "results.json", results)
        write_text(folder / "report.html", page_of(results))
        keep_split(where, data, begun.study, sha256)
    if as_json:
        print_json(results)
        return
    _print_rows(results["evaluation"], results["comparisons"], begun.mode)
    for note in results["notes"]:
        print(note)
    print(f"model written to {out} (SHA-256 {sha256}); {out / 'report.html'} shows what it is worth")


def evaluate_model_folder(folder: Path, site: Path, *, as_json: bool) -> None:
    """Measure a model on all of a site's test patients."""
    from hilum.client.evaluation.label_tables import labels_json
    from hilum.client.evaluation.own_task import evaluate_model
    from hilum.client.tasks.model_files import load_model
    from hilum.common.config import load_site

    where, model = load_site(site), load_model(folder)
    seen: list[SiteData] = []

    def tell(data: "SiteData") -> None:
        seen.append(data)
        tell_labels(model.study, data)

    found = evaluate_model(where, model, device=where.compute.device, tell=tell)
    if as_json:
        labels = labels_json(model.study, seen)
        print_json({**found.to_json(), "model_sha256": model.sha256, "labels": labels})
    else:
        _print_rows(found.to_json()["rows"], [], model.trained.mode)


def tell_labels(study: "StudyConfig", data: "SiteData") -> None:
    """Show on stderr which labels were read; or, without any, what changed since the run began."""
    from hilum.client.evaluation.label_tables import label_lines

    for line in label_lines(study, [data]) or data.notes:
        print(line, file=sys.stderr)


def _results(data: "SiteData", begun: "Begun", tuned: "Tuned", sha256: str) -> dict[str, Any]:
    """Return what `results.json` of a model holds."""
    from hilum.client.evaluation.label_tables import labels_json
    from hilum.common import __version__

    found: Evaluation = tuned.evaluation
    model = tuned.model
    return {
        "version": RESULTS_VERSION,
        "hilum": __version__,
        "model_sha256": sha256,
        "encoder_sha256": model.encoder_sha256,
        "site": data.name,
        "kind": model.kind,
        "mode": begun.mode,
        "label_share": begun.share,
        "seed": begun.study.study.seed,
        "steps": tuned.steps,
        "temperature": model.temperature,
        "trained": asdict(model.trained),
        "evaluation": found.to_json()["rows"],
        "comparisons": found.to_json()["comparisons"],
        "labels": labels_json(begun.study, [data]),
        "notes": list(data.notes),
    }


def _print_rows(rows: list[dict[str, Any]], comparisons: list[dict[str, Any]], mode: str) -> None:
    """Print a line for each row, with how much better the model is where it could be compared."""
    from hilum.client.evaluation.own_page import line_words
    from hilum.common.config.tasks import METRICS
    from hilum.common.results_table import NOTE_WORDS

    differences = {_key(one): one for one in comparisons}
    for row in sorted(rows, key=lambda row: list(METRICS).index(row["metric"])):
        what, how = line_words(row, mode)
        interval = f"{row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
        known = differences.get(_key(row))
        told = (
            f"model minus this {known['difference']:+.3f} ({known['ci_low']:+.3f} to {known['ci_high']:+.3f})"
            if known
            else ""
        )
        print(f"{row['metric']:18} {what:16} {how:26} {interval:24} {told}".rstrip())
    for note in sorted({row["note"] for row in rows} - {""}):
        print(f"{note}: {NOTE_WORDS[note]}")


def _key(line: Mapping[str, Any]) -> tuple[str, str, str]:
    return line["protocol"], line["arm"], line["metric"]
