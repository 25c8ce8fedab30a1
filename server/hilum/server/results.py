"""The content of `results.json`."""

from dataclasses import asdict
from typing import Any

from hilum.common.config import StudyConfig
from hilum.server.federation.rounds import Site
from hilum.server.federation.store import Progressed

RESULTS_VERSION = 1


def build_results(
    study: StudyConfig,
    done: Progressed,
    sites: list[Site],
    evaluations: list[dict[str, Any]],
    notes: list[str],
) -> dict[str, Any]:
    """The content of `results.json`.

    Args:
        study: The study.
        done: All rounds.
        sites: Who took part.
        evaluations: Each site's rows and comparisons.
        notes: What a reader must know: a site that could not be evaluated, and why.
    """
    unit = {
        "unit": "none",
        "mechanism": study.privacy.mechanism,
        "epsilon": None,
        "delta": None,
        "max_update_norm": study.privacy.max_update_norm,
    }
    return {
        "version": RESULTS_VERSION,
        "study": study.study.name,
        "seed": study.study.seed,
        "sites": [{"name": site.name, "examples": site.examples} for site in sites],
        "rounds": [asdict(record) for record in done.rounds],
        "privacy": {site.name: unit for site in sites},
        "evaluation": [row for found in evaluations for row in found["rows"]],
        "comparisons": [one for found in evaluations for one in found["comparisons"]],
        "notes": notes,
    }
