"""What there is to tell about runs: plain functions, used while the server runs and when it does not."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.common.config.base import NAME_PATTERN
from hilum.common.errors import ConfigError, RunError
from hilum.common.files import private_folder
from hilum.common.output_folder import check_output_folder
from hilum.server.admin.authority import FederationFolder
from hilum.server.admin.queue import QueuedRun, RunQueue


def check_run_name(name: str) -> str:
    """Return a run's name, which is a folder's name and nothing more.

    Raises:
        RunError: If it could lead out of the runs folder.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise RunError(
            "a run's name has letters, digits, '.', '_' and '-', at most 64, and begins with a letter or digit"
        )
    return name


@dataclass(frozen=True)
class RunSummary:
    """One run for the admin's eyes.

    Attributes:
        state: `queued`, `running`, `finished`, `failed` or `stopped`.
        rounds_done: Rounds whose checkpoint is there.
        rounds: Rounds of the study.
        sites: Who takes part.
        submitted_at: In seconds since 1970.
        since: When it came into its state, likewise.
        reason: Why it failed.
    """

    run: str
    state: str
    rounds_done: int
    rounds: int
    sites: tuple[str, ...]
    submitted_at: float
    since: float
    reason: str


def all_runs(folder: FederationFolder) -> list[RunSummary]:
    """Return every run of a federation, in the order of its queue, whether the server runs or not."""
    queue = RunQueue(folder.file("runs.sqlite"))
    try:
        return [summary(one, folder.runs) for one in queue.runs()]
    finally:
        queue.close()


def summary(queued: QueuedRun, runs: Path) -> RunSummary:
    """Tell where a run of the queue stands."""
    document: dict[str, Any] = json.loads(queued.signed.document)  # verified before it came into the queue
    return RunSummary(
        run=queued.name,
        state=queued.state,
        rounds_done=rounds_done(runs / queued.name),
        rounds=int(document["study"]["federation"]["rounds"]),
        sites=tuple(document["sites"]),
        submitted_at=queued.submitted_at,
        since=queued.changed_at,
        reason=queued.reason,
    )


def rounds_done(folder: Path) -> int:
    """Count the rounds of a run directory."""
    try:
        return len((folder / "rounds.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0


def fetch_run(runs: Path, run: str, out: Path) -> None:
    """Copy a finished run's directory without its checkpoints.

    Raises:
        RunError: If there is no finished run of this name, or the output folder is not empty.
        ConfigError: If the output folder can't be written.
    """
    source = runs / check_run_name(run)
    if not (source / "results.json").exists():
        raise RunError("there is no finished run of this name; `hilum admin runs` lists them")
    check_output_folder(out)
    try:
        private_folder(out)
        shutil.copytree(
            source, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints", "run.lock", ".*")
        )
    except (OSError, shutil.Error):
        raise ConfigError(
            out.name,
            ["can't be written whole; name a folder that this user may write to, with room on its disk"],
        ) from None
