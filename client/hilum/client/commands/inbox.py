"""`hilum site empty-inbox`: make room on the disk of the state folder."""

from dataclasses import asdict
from typing import Annotated

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home

_DAY_S = 86_400.0
_WHY = {
    "not_indexed": "not indexed yet, or came again",
    "series_stays": "of a series that has such files, goes on in the indexed folder, or is not in the cache",
    "too_new": "too new; see --older-than",
    "unsettled": "wait for a decision in quarantine, for the rest of their series, or failed for the moment",
}


def empty_inbox(
    older_than: Annotated[
        float, typer.Option("--older-than", help="Days since a file came; later slices may follow it.", min=0)
    ] = 7.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Remove from the inbox what is in the cache, was refused or is a copy. It stays indexed, and is not pulled again."""
    from hilum.client.intake.sources.inbox_cleanup import empty_inbox as empty
    from hilum.client.state.workspace import Workspace

    report = empty(Workspace(hilum_home(home) / "site"), older_than_s=older_than * _DAY_S)
    if as_json:
        print_json(asdict(report))
        return
    print(f"{report.removed:8} files removed ({report.freed_bytes / 1e6:.1f} MB)")
    for why, count in report.kept.items():
        print(f"{count:8} kept: {_WHY[why]}")
