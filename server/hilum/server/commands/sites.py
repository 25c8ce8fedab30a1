"""`hilum admin approve`, `revoke` and `sites`: who may take part."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.server.commands.options import federation_in
from hilum.server.commands.times import day

if TYPE_CHECKING:
    from hilum.server.admin.sites import SiteList, SiteSummary


def approve(
    request: Annotated[Path, typer.Argument(help="The site.csr that a site sent.", readable=False)],
    name: Annotated[
        str | None, typer.Option("--name", help="The site's name; default: the one in the request.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="The site has a new key: its earlier one ends now.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to send back; default: NAME.link.toml.", readable=False),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let a site in: sign its certificate, and write the one file to send back. No restart is needed."""
    from dataclasses import asdict
    from dataclasses import replace as changed

    from hilum.common.security.certificates import days_left
    from hilum.common.security.keys import read_paper
    from hilum.common.security.requests import check_name, read_request
    from hilum.server.admin.authority import approve_site

    folder = federation_in(home)
    asked = read_request(read_paper(request, "name the site.csr that the site sent"), request.name)
    if name is not None:
        asked = changed(asked, name=check_name(name, "--name"))
    path = out or Path(f"{asked.name}.link.toml")
    link = approve_site(folder, asked, path, replace=replace)
    days, prints = days_left(link.certificate), folder.fingerprints()
    if as_json:
        report = {"name": asked.name, "link": str(path), "days": days, "fingerprint": asked.fingerprint}
        print_json({**report, "fingerprints": asdict(prints)})
        return
    print(f"{asked.name} may connect, for {days} days; send {path} to the site")
    print("compare these fingerprints with the site by telephone:")
    print(f"    its key    {asked.fingerprint}")
    print(f"    root       {prints.root}\n    study key  {prints.study_key}")


def revoke(
    name: Annotated[str, typer.Argument(help="The site's name.")], home: Home = None, as_json: AsJson = False
) -> None:
    """Shut a site out, from its next request on."""
    registry = federation_in(home).sites()
    try:
        registry.revoke(name)
    finally:
        registry.close()
    if as_json:
        print_json({"name": name, "status": "revoked"})
    else:
        print(f"{name} is shut out; its key is never accepted again")


def sites(home: Home = None, as_json: AsJson = False) -> None:
    """List the sites: approved or revoked, until when, and whether they are connected."""
    from dataclasses import asdict

    from hilum.server.admin.sites import all_sites

    found = all_sites(federation_in(home))
    if as_json:
        print_json([asdict(site) for site in found.sites])
    else:
        print("\n".join(site_lines(found)))


def site_lines(found: "SiteList") -> list[str]:
    """Return one line a site."""
    if not found.sites:
        return ["no site yet; `hilum admin approve site.csr` lets one in"]
    width = max(len(site.name) for site in found.sites)
    lines = [
        f"{site.name:{width}}  {site.status:8}  until {day(site.ends_at)}  {_connection(site):28}  "
        f"{site.fingerprint}"
        for site in found.sites
    ]
    return lines if found.serving else [*lines, "no server runs on this state folder"]


def _connection(site: "SiteSummary") -> str:
    if site.seen_s_ago is not None:
        return f"seen {site.seen_s_ago:.0f} s ago"
    return (
        "not yet seen" if site.first_seen_at is None else f"not connected, joined {day(site.first_seen_at)}"
    )
