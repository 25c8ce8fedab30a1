"""`hilum site browse`: look at what was indexed."""

from pathlib import Path
from typing import Annotated

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home


def browse(
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the pages; default: in the state folder.", readable=False),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Show at most so many of each family.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the first page in a browser.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write a gallery of what is indexed. This is for the site alone: it holds patients' pixels."""
    import webbrowser

    from hilum.client.gallery.browse import write_gallery
    from hilum.client.state.workspace import Workspace

    workspace = Workspace(hilum_home(home) / "site")
    page = write_gallery(workspace, out or workspace.folder / "gallery", limit).absolute()
    if as_json:
        print_json({"page": str(page)})
    else:
        typer.echo(f"{page} shows what is indexed; it holds patients' pixels and must not leave this machine")
    if show and not webbrowser.open(page.as_uri()):
        typer.echo("no browser was found on this machine; open the page yourself", err=True)
