"""What must be as it was when a simulation goes on: its name at the sites, the sites, and what they keep of the run.

The settings of the study are compared where the run directory is opened (`hilum.server.federation.store`).
"""

import json
from pathlib import Path

from hilum.client.pretraining.checkpoint import LocalParts
from hilum.client.state.workspace import Workspace
from hilum.common.config import SiteConfig, StudyConfig
from hilum.common.errors import RunError
from hilum.common.files import read_json
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_kept

RUN_NAME_FILE = "run.json"
_STUDY, _ROUNDS = "study.resolved.toml", "rounds.jsonl"


def has_begun(out: Path) -> bool:
    """Return whether there is a run to go on with."""
    return (out / _STUDY).exists()


def kept_run_name(out: Path) -> str | None:
    """Return the name under which the sites know the run of a folder; None where it has not begun."""
    try:
        return str(read_json(out / RUN_NAME_FILE)["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_same_sites(out: Path, sites: list[SiteConfig]) -> None:
    """Refuse to go on with other sites than the rounds so far had.

    Raises:
        RunError: It names those that are missing or new.
    """
    rounds = _rounds(out)
    if not rounds:
        return
    before = set(rounds[-1]["sites"]) | set(rounds[-1]["failures"])
    now = {site.site.name for site in sites}
    missing, new = ", ".join(sorted(before - now)), ", ".join(sorted(now - before))
    if missing:
        raise RunError(
            f"{missing} took part in this run and is missing from the archives folder; put its folder back to go on, or begin "
            "the study without it in a new output folder"
        )
    if new:
        raise RunError(
            f"{new} did not take part in this run and is in the archives folder; take its folder out to go on, or begin the "
            "study with it in a new output folder"
        )


def check_kept_parts(out: Path, study: StudyConfig, sites: list[SiteConfig], run: str) -> None:
    """Refuse to go on without the parts of the method that each site keeps to itself: they would begin again unnoticed.

    Raises:
        RunError: If a site that trained lacks them.
    """
    rounds = _rounds(out)
    if not rounds or len(rounds) >= study.federation.rounds or not get_kept(build_method(study)):
        return
    trained = {name for record in rounds for name in record["sites"]}
    for site in sites:
        kept = LocalParts(Workspace(site.state.folder).run(run))
        if site.site.name in trained and kept.before(len(rounds) + 1) is None:
            raise RunError(
                f"what {site.site.name} keeps to itself of this run is not in the state folder; go on with the --home and the "
                "--archives that the run began with, or begin the study in a new output folder"
            )


def _rounds(out: Path) -> list[dict[str, dict[str, object]]]:
    path = out / _ROUNDS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
