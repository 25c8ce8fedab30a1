"""What several of the admin's commands take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilum.common.home import hilum_home

if TYPE_CHECKING:
    from hilum.server.admin.authority import FederationFolder

Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host", help="A name or address by which sites reach the server; give all, main one first."
    ),
]
Run = Annotated[str, typer.Argument(help="The run's name.")]
PORT = 9443


def federation_in(home: Path | None) -> "FederationFolder":
    """Return the federation of a state folder."""
    from hilum.server.admin.authority import FederationFolder

    return FederationFolder(hilum_home(home))
