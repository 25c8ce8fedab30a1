"""The federation admin's commands: `hilum admin ...`."""

import os

import typer

from hilum.server.commands.federation import dev_keys, init, renew, serve
from hilum.server.commands.runs import fetch, runs, stop
from hilum.server.commands.sites import approve, revoke, sites
from hilum.server.commands.studies import sign, submit

app = typer.Typer(no_args_is_help=True, help="For the federation admin: keys, sites, serve, submit, fetch.")


@app.callback()
def for_the_owner_alone() -> None:
    """Whatever these commands and the processes that they start write, their user alone may read."""
    os.umask(0o077)


def register(root: typer.Typer) -> None:
    """Add this portion's commands to `hilum`."""
    federation = (init, renew, approve, revoke, sites, dev_keys, serve)
    for command in (*federation, sign, submit, runs, stop, fetch):
        app.command()(command)
    root.add_typer(app, name="admin")
