"""`hilum site enroll` and `hilum site join`: a site's key, and its way into a federation."""

from pathlib import Path
from typing import Annotated

import typer

from hilum.common.cli import AsJson, print_json


def enroll(
    name: Annotated[str, typer.Option("--name", help="The site's name in the federation.")],
    out: Annotated[
        Path, typer.Option("--out", help="The folder for the key; default: this one.", readable=False)
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Make this site's key, which never leaves, and the request for a certificate to send to the admin."""
    from hilum.common.security.site_folder import KEY
    from hilum.common.security.site_folder import enroll as make

    made = make(out, name)
    if as_json:
        report = {"name": name, "key": str(out / KEY), "request": str(made.request)}
        print_json({**report, "fingerprint": made.fingerprint, "new_key": made.fresh})
        return
    how = "is made" if made.fresh else "was there already and is used again"
    print(f"{out / KEY} {how}: it stays here, readable by you alone")
    print(f"send {made.request} to the federation's admin, and compare this fingerprint by telephone:")
    print(f"    {made.fingerprint}")
    where = "" if out == Path() else f" --out {out}"
    print(f"then, with the file that comes back: hilum site join {name}.link.toml --site site.toml{where}")


def join(
    link: Annotated[
        Path, typer.Argument(help="The NAME.link.toml that the admin sent back.", readable=False)
    ],
    site: Annotated[
        Path | None, typer.Option("--site", help="The site file to put the link into.", readable=False)
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", help="The folder where site.key lies; default: this one.", readable=False),
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Take what the admin sent: check that it fits this site's key, and put it beside it and into the site file."""
    import tomllib

    from hilum.common.security.certificates import days_left
    from hilum.common.security.site_folder import join as take
    from hilum.common.security.site_folder import link_table, put_into_site_file

    taken = take(out, link)
    table = link_table(taken, out, site.parent if site is not None else Path())
    if site is not None:
        put_into_site_file(site, table, taken.name)
    if as_json:
        report = {"name": taken.name, "server": taken.server, "days": days_left(taken.certificate)}
        prints = {"root": taken.root_fingerprint, "study_key": taken.study_fingerprint}
        print_json({**report, "fingerprints": prints, "link": tomllib.loads(table)["link"]})
        return
    print(f"this site is {taken.name} at {taken.server}, for {days_left(taken.certificate)} days")
    print("compare these fingerprints with the admin by telephone:")
    print(f"    root       {taken.root_fingerprint}")
    print(f"    study key  {taken.study_fingerprint}")
    if site is None:
        print("put this into the site file, or run the command again with --site:\n")
        print(table, end="")
    else:
        print(f"{site} has the link; take part with `hilum site start {site}`")
