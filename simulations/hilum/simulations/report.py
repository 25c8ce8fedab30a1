"""`report.html`: one self-contained page from a run directory, and nothing but the run directory."""

import base64
import tomllib
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from hilum.common.errors import RunError
from hilum.common.files import read_json, write_text
from hilum.simulations.charts import ARM_COLOURS, arms_chart, loss_chart
from hilum.simulations.claims import claims_of
from hilum.simulations.verdict import METRIC, judge

_PROTOCOL_WORDS = {
    "linear": "Linear probe: the encoder is frozen, a logistic regression is fitted",
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


def write_report(folder: Path) -> Path:
    """Build the report of a finished run.

    Returns:
        The path of `report.html`.

    Raises:
        RunError: If the folder holds no finished run.
    """
    try:
        results = read_json(folder / "results.json")
        manifest = read_json(folder / "encoder" / "manifest.json")
        machine = read_json(folder / "environment.json")
        study_text = (folder / "study.resolved.toml").read_text()
    except FileNotFoundError:
        raise RunError("this folder holds no finished run; give the folder that --out named") from None
    except ValueError as error:
        raise RunError(
            f"a file of this run is damaged ({type(error).__name__}); finish the run with --resume"
        ) from None
    pages = Environment(
        loader=PackageLoader("hilum.simulations", "templates"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = pages.get_template("report.html.j2").render(
        results=results,
        study=tomllib.loads(study_text),
        study_text=study_text,
        manifest=manifest,
        machine=machine,
        verdict=judge(results),
        losses=loss_chart(results["rounds"]),
        protocols=_protocols(results),
        previews=_previews(folder),
        totals=_totals(results),
        colours=ARM_COLOURS,
        claims=claims_of(results),
        arms=_arm_words(results),
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _arm_words(results: dict[str, Any]) -> dict[str, str]:
    """The arms that were measured, in words."""
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


def _protocols(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One section a protocol: a chart at the largest label fraction, and the whole table."""
    sections = []
    rows = results["evaluation"]
    shares = sorted({row["label_fraction"] for row in rows})
    sites = sorted({row["site"] for row in rows})
    for protocol, words in _PROTOCOL_WORDS.items():
        here = [row for row in rows if row["protocol"] == protocol]
        if not here:
            continue
        charted = [row for row in here if row["metric"] == METRIC and row["label_fraction"] == shares[-1]]
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
                "share": shares[-1],
                "chart": arms_chart(charted, list(ARM_COLOURS)) if charted else "",
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
