"""`hilum site new` and `hilum site check`: the site file, and whether all that it names is right."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home

_TO_MEND = 3


def new(
    file: Annotated[Path, typer.Argument(help="Where to write the site file.", readable=False)] = Path(
        "site.toml"
    ),
    name: Annotated[str, typer.Option("--name", help="The site's name in the federation.")] = "my-site",
    dicom: Annotated[Path, typer.Option("--dicom", help="The folder of the archive.", readable=False)] = Path(
        "dicom"
    ),
    labels: Annotated[
        Path | None, typer.Option("--labels", help="The label table, if there is one.", readable=False)
    ] = None,
    home: Home = None,
) -> None:
    """Write a commented site file: archive, labels, state folder, and the ceilings that no study can raise."""
    from hilum.common.config.site_template import site_template
    from hilum.common.errors import RunError
    from hilum.common.files import write_text
    from hilum.common.security.requests import check_name

    check_name(name, "--name")
    if file.exists():
        raise RunError(f"{file.name} exists already; name a new file, or remove it first")
    state = hilum_home(home) / "site"
    write_text(file, site_template(name, dicom, labels, state))
    print(f"{file} is written; put in what is yours, and check it with `hilum site check {file}`")
    elsewhere = f" --home {shlex.quote(str(home))}" if home is not None else ""
    print(
        f"index the archive with `hilum site index {shlex.quote(str(dicom))}{elsewhere}`; its state lies in {state}"
    )


def check(
    site: Annotated[Path, typer.Argument(help="The site file.", readable=False)] = Path("site.toml"),
    as_json: AsJson = False,
) -> None:
    """Look at archive, state, labels, device, disk, link and server: each is fine, or what to do."""
    from hilum.client.site_check import as_lines, check_site
    from hilum.common.config import load_site

    found = check_site(load_site(site), site)
    if as_json:
        print_json({"ok": all(one.fine for one in found), "findings": [asdict(one) for one in found]})
    else:
        print("\n".join(as_lines(found)))
    if not all(one.fine for one in found):
        raise typer.Exit(_TO_MEND)
