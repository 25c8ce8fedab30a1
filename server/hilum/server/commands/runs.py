"""`hilum admin runs`, `stop` and `fetch`: what was submitted, and how it goes.

Adding a command takes a function in the file of its group: options, one call, printing; its line in `hilum.server.cli`; and what it
tells as a frozen value, in `hilum.server.admin` (`runs`, `sites`). What only a running server knows is asked by `admin.client` and
answered by `admin.plane`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home
from hilum.server.commands.options import Run, federation_in
from hilum.server.commands.times import minute

if TYPE_CHECKING:
    from hilum.server.admin.runs import RunSummary


def runs(home: Home = None, as_json: AsJson = False) -> None:
    """List the runs: queued, running, finished, failed and why, or stopped."""
    from dataclasses import asdict

    from hilum.server.admin.runs import all_runs

    found = all_runs(federation_in(home))
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        print("\n".join(run_lines(found)))


def run_lines(runs: "Sequence[RunSummary]") -> list[str]:
    """Return one line a run, and one more for why it failed."""
    if not runs:
        return ["no run yet; `hilum admin submit STUDY` starts one"]
    width = max(len(run.run) for run in runs)
    lines = []
    for run in runs:
        lines.append(
            f"{run.run:{width}}  {run.state:8}  {run.rounds_done} of {run.rounds} rounds  since {minute(run.since)}"
        )
        if run.reason:
            lines.append(f"{'':{width}}  {run.reason}")
    return lines


def stop(run: Run, home: Home = None, as_json: AsJson = False) -> None:
    """Stop a run, or take it out of the queue; its checkpoints stay, and `submit --resume` goes on with it."""
    from hilum.server.admin.client import AdminClient
    from hilum.server.admin.runs import check_run_name

    report = AdminClient(federation_in(home).file("admin.sock")).stop(check_run_name(run))
    if as_json:
        print_json(report)
    else:
        print(f"run {run} is stopped" + ("" if report["idle"] else "; it ends what it is computing"))


def fetch(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Where to: new or empty.", readable=False)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Copy a finished run's directory, encoder included."""
    from hilum.server.admin.runs import fetch_run

    fetch_run(hilum_home(home) / "runs", run, out)
    if as_json:
        print_json({"run": run, "folder": str(out)})
    else:
        print(f"run {run} is in {out}")
