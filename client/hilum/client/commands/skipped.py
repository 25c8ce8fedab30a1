"""`hilum site skipped`: which files an index set aside."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home

_FIRST = 5  # paths of each reason, where all reasons are shown


def skipped(
    reason: Annotated[
        str | None, typer.Argument(help="A reason code: all its files, one path a line.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="The indexed folder; default: that of the last index.", readable=False),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List the files that an index set aside, by reason. Paths may name patients: they are for the site alone."""
    from hilum.client.gallery.skipped import read_reason, shown, skipped_files
    from hilum.client.state.workspace import Workspace

    one = read_reason(reason)
    found = skipped_files(Workspace(hilum_home(home) / "site"), one, folder)
    if as_json:
        print_json(
            [
                {
                    "reason": group.reason,
                    "meaning": group.reason.meaning,
                    "count": group.count,
                    "paths": [str(path) for path in group.paths],
                }
                for group in found
            ]
        )
        return
    for group in found:
        if one is None:
            print(f"{group.count:8} {group.reason}: {group.reason.meaning}")
        for path in group.paths if one else group.paths[:_FIRST]:
            print(shown(path) if one else f"         {shown(path)}")
        if one is None and len(group.paths) > _FIRST:
            rest = len(group.paths) - _FIRST
            print(f"         and {rest} more: `hilum site skipped {group.reason}` lists all")
    gone = sum(group.count - len(group.paths) for group in found)
    if gone:
        print(f"{gone} more are not there any longer; the next index forgets them", file=sys.stderr)
    if not found:
        print("no file was set aside" + (f" as {one}" if one else ""), file=sys.stderr)
