"""`hilum site quarantine`: look at what may carry burned-in text, and release or drop it."""

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home

if TYPE_CHECKING:
    from hilum.client.intake.quarantine.store import HeldImage, Quarantine
    from hilum.client.state.workspace import Workspace


_GALLERY = "quarantine-gallery"


class Action(StrEnum):
    """What to do with the held images."""

    LIST = "list"
    SHOW = "show"
    RELEASE = "release"
    DROP = "drop"


def quarantine(
    action: Annotated[
        Action, typer.Argument(help="list and show change nothing; release and drop decide.")
    ] = Action.LIST,
    keys: Annotated[list[str] | None, typer.Argument(help="Keys of held images, as listed.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that are held, instead of keys.")] = False,
    crop: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(help="Release only this part: first row, first column, row and column after the last."),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List, show, release or drop images that are held back because text may be burned into them."""
    from hilum.client.intake.quarantine.store import Quarantine
    from hilum.client.state.catalogue import Catalogue
    from hilum.client.state.workspace import Workspace
    from hilum.common.errors import ConfigError, DataError

    workspace = Workspace(hilum_home(home) / "site")
    if not workspace.catalogue.exists():
        raise DataError("nothing is indexed yet; run `hilum site index FOLDER` first")
    decides = action in (Action.RELEASE, Action.DROP)
    if decides != bool(every or keys) or (every and keys):
        raise ConfigError("quarantine", [f"`{action}` takes {'keys, or --all' if decides else 'no keys'}"])
    if crop is not None and action != Action.RELEASE:
        raise ConfigError("quarantine", ["--crop goes with `release`"])
    catalogue = Catalogue(workspace.catalogue)
    try:
        held = Quarantine(workspace, catalogue)
        if action == Action.LIST:
            _list(held.list_held(), as_json=as_json)
        elif action == Action.SHOW:
            _show(held, workspace, as_json=as_json)
        else:
            _decide(held, workspace, action, keys, crop, as_json=as_json)
    finally:
        catalogue.close()


def _list(images: "list[HeldImage]", *, as_json: bool) -> None:
    counts = Counter((one.item.family, one.reason) for one in images)
    if as_json:
        print_json(
            {
                "held": len(images),
                "by_family_and_reason": [
                    {"family": family, "reason": reason, "images": count}
                    for (family, reason), count in sorted(counts.items())
                ],
                "images": [
                    {"key": one.item.item_key, "family": one.item.family, "shape": list(one.item.shape)}
                    for one in images
                ],
            }
        )
        return
    typer.echo(f"{len(images):8} held")
    for (family, reason), count in sorted(counts.items()):
        typer.echo(f"{count:8} {family}: {reason.meaning}")
    for one in images:
        typer.echo(f"{one.item.item_key}  {one.item.family}, {' x '.join(map(str, one.item.shape))}")
    if images:
        typer.echo("look at them with `hilum site quarantine show`, then `release` or `drop` them by key")


def _show(held: "Quarantine", workspace: "Workspace", *, as_json: bool) -> None:
    from hilum.client.gallery.browse import write_held_gallery

    page = write_held_gallery(held, workspace.folder / _GALLERY)
    if as_json:
        print_json({"page": str(page)})
    else:
        typer.echo(f"{page} shows what is held; it holds patients' pixels and must not leave this machine")


def _decide(
    held: "Quarantine",
    workspace: "Workspace",
    action: Action,
    keys: list[str] | None,
    crop: tuple[int, int, int, int] | None,
    *,
    as_json: bool,
) -> None:
    from hilum.client.gallery.browse import remove_gallery

    with workspace.locked():
        images = held.find(keys) if keys else held.list_held()
        count = held.release(images, crop) if action == Action.RELEASE else held.drop(images)
        remove_gallery(workspace.folder / _GALLERY)  # it shows what was dropped
        left = len(held.list_held())
    done = "released" if action == Action.RELEASE else "dropped"
    if as_json:
        print_json({done: count, "held": left})
    else:
        typer.echo(f"{count:8} {done}\n{left:8} held")
