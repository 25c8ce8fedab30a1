"""The page of a fine-tuned model: what it reaches on the site's test patients, beside the baselines. For the site's owner."""

from collections.abc import Mapping, Sequence
from typing import Any

from hilum.common.config.tasks import METRICS, Metric
from hilum.common.pages import pages_of
from hilum.common.results_table import NOTE_WORDS

MODE_WORDS = {
    "frozen": "The head was trained, on an encoder that did not move",
    "lora": "Head and low-rank adapters were trained",
    "finetune": "Head and encoder were trained",
}
_HOW = {
    "linear": "linear probe",
    "frozen": "head on the frozen encoder",
    "lora": "low-rank adapters",
    "finetune": "fine-tuned",
}
_WHAT = {
    "federated": "the encoder",
    "raw": "raw pixels",
    "random": "a random encoder",
    "scratch": "from scratch",
}
_BASELINES = "a regression on raw pixels, an encoder with random weights, and the same network from scratch"


def line_words(row: Mapping[str, Any], mode: str) -> tuple[str, str]:
    """Return what a row is of, and how it was measured."""
    is_model = (row["protocol"], row["arm"]) == (mode, "federated")
    return "this model" if is_model else _WHAT[row["arm"]], _HOW[row["protocol"]]


def page_of(results: Mapping[str, Any]) -> str:
    """Return the page of what `results.json` of a model holds."""
    names = dict.fromkeys(row["metric"] for row in results["evaluation"])
    return (
        pages_of("hilum.client.evaluation")
        .get_template("finetuned.html.j2")
        .render(
            results=results,
            mode_words=MODE_WORDS,
            baseline_words=_BASELINES,
            metrics=[_section(name, METRICS[name], results) for name in names],
        )
    )


def _section(name: str, metric: Metric, results: Mapping[str, Any]) -> dict[str, Any]:
    rows = [row for row in results["evaluation"] if row["metric"] == name]
    return {
        **metric._asdict(),
        "patients": rows[0]["n_patients"],
        "rows": [_line(row, metric, results["mode"], results["comparisons"]) for row in rows],
    }


def _line(
    row: Mapping[str, Any], metric: Metric, mode: str, comparisons: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    keys = ("protocol", "arm", "metric")
    what, how = line_words(row, mode)

    def place(value: float) -> float:
        return round(100 * (value - metric.low) / (metric.high - metric.low), 2)

    return {
        **row,
        "what": what,
        "how": how,
        "ours": what == "this model",
        "note": NOTE_WORDS.get(row["note"], ""),
        "left": place(row["ci_low"]),
        "right": place(row["ci_high"]),
        "middle": place(row["value"]),
        "difference": next((one for one in comparisons if all(one[key] == row[key] for key in keys)), None),
    }
