"""`hilum admin init`, `renew`, `dev-keys` and `serve`: the federation itself and its server."""

from pathlib import Path
from typing import Annotated

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home
from hilum.server.commands.options import PORT, Hosts, federation_in


def init(
    host: Hosts = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = PORT,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a federation: its root, the server's certificate, and the key that signs studies."""
    from dataclasses import asdict

    from hilum.common.security.certificates import SERVER_DAYS
    from hilum.server.admin.authority import init_federation

    folder = init_federation(hilum_home(home), host or ["127.0.0.1"], port)
    prints = folder.fingerprints()
    if as_json:
        report = {"folder": str(folder.path), "server": folder.address().server, "days": SERVER_DAYS}
        print_json({**report, "fingerprints": asdict(prints)})
        return
    print(f"the federation's keys are in {folder.path}, readable by you alone; keep a backup of root.key")
    print(
        f"sites reach the server as {folder.address().server}; its certificate is good for {SERVER_DAYS} days"
    )
    if not host:
        print("only sites on this machine can: give --host NAME for others (`hilum admin renew --host NAME`)")
    print(f"    root       {prints.root}\n    study key  {prints.study_key}")


def renew(
    host: Hosts = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535)] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a new server certificate, with the kept root; a server that runs takes it up, sites need nothing new."""
    from hilum.common.security.certificates import covered_hosts, days_left
    from hilum.server.admin.authority import renew_server
    from hilum.server.admin.client import AdminClient, NoServerError

    folder = federation_in(home)
    made = renew_server(folder, host or [], port)
    try:
        AdminClient(folder.file("admin.sock")).take_up_certificate()
        used = True
    except NoServerError:
        used = False
    if as_json:
        print_json({"hosts": covered_hosts(made), "days": days_left(made), "in_use": used})
        return
    print(
        f"the server's certificate is for {', '.join(covered_hosts(made))}, good for {days_left(made)} days"
    )
    print("the server that runs uses it from now on" if used else "the next `hilum admin serve` uses it")


def dev_keys(
    folder: Annotated[Path, typer.Argument(help="Where to: new or empty.", readable=False)],
    sites: Annotated[int, typer.Option("--sites", min=1, max=1000, help="How many sites.")] = 3,
    host: Hosts = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = PORT,
    as_json: AsJson = False,
) -> None:
    """Play admin and all sites, for a trial on one machine; in a real federation each site makes its own key."""
    from hilum.server.admin.authority import make_trial

    made = make_trial(folder, sites, host or ["127.0.0.1"], port)
    if as_json:
        print_json({"home": str(folder / "server"), "sites": [str(path) for path in made]})
        return
    print(f"the server's state folder is {folder / 'server'}: hilum admin serve --home {folder / 'server'}")
    print(f"the papers of {sites} sites are in {made[0]} and so on; put link.toml there into the site file")


def serve(
    home: Home = None,
    host: Annotated[
        str | None, typer.Option("--host", help="The address to listen on; default: all, if sites need it.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535)] = None,
) -> None:
    """Serve the federation on one port until stopped; what dies or hangs is started again, and goes on."""
    from hilum.server.serve import serve as serve_until_stopped
    from hilum.server.server_log import log_to_stderr

    log_to_stderr()
    serve_until_stopped(hilum_home(home), host, port)
