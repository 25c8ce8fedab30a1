"""Thin Flower ServerApp: it finds out what to do and hands it to `conduct`."""

import re
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hilum.common.config.base import NAME_PATTERN
from hilum.common.errors import RunError
from hilum.common.home import hilum_home
from hilum.common.quiet import close_outbound, configure_logging
from hilum.server.federation.conduct import Assignment, conduct

AssignmentOf = Callable[[Context], Assignment]


def runs_folder() -> Path:
    """Where a deployed server keeps its runs."""
    return hilum_home() / "runs"


def check_run_name(name: str) -> str:
    """A run's name is a folder's name and nothing more.

    Raises:
        RunError: If it could lead out of the runs folder.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise RunError(
            "a run's name has letters, digits, '.', '_' and '-', at most 64, and begins with a letter or digit"
        )
    return name


def make_app(assignment_of: AssignmentOf) -> ServerApp:
    """The server app; `assignment_of` tells what a run is to do."""
    made = ServerApp()

    @made.main()
    def main(grid: Grid, context: Context) -> None:
        close_outbound()
        configure_logging()
        conduct(grid, assignment_of(context))

    return made
