"""The federation admin's commands: `hilum admin ...`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.errors import ConfigError
from hilum.common.home import hilum_home

if TYPE_CHECKING:
    from hilum.common.signing import SignedStudy
    from hilum.server.admin.authority import FederationFolder

app = typer.Typer(no_args_is_help=True, help="For the federation admin: keys, sites, serve, submit, fetch.")

Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host", help="A name or address by which sites reach the server; give all, main one first."
    ),
]
Study = Annotated[Path, typer.Argument(help="The study file.", readable=False)]
RunName = Annotated[str | None, typer.Option("--run", help="The run's name; default: the study's.")]
Days = Annotated[float, typer.Option("--days", help="For how long the signature holds.")]
StudyKey = Annotated[
    Path | None,
    typer.Option("--key", help="The key to sign with; default: the federation's study.key.", readable=False),
]
Run = Annotated[str, typer.Argument(help="The run's name.")]
_PORT = 9443
_SUBMIT_PATIENCE_S = 5.0  # for `serve & submit` in one line


@app.callback()
def for_the_owner_alone() -> None:
    """Whatever these commands and the processes that they start write, their user alone may read."""
    os.umask(0o077)


def register(root: typer.Typer) -> None:
    """Add this portion's commands to `hilum`."""
    root.add_typer(app, name="admin")


@app.command()
def init(
    host: Hosts = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = _PORT,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a federation: its root, the server's certificate, and the key that signs studies."""
    from hilum.common.security.certificates import SERVER_DAYS
    from hilum.server.admin.authority import init_federation

    folder = init_federation(hilum_home(home), host or ["127.0.0.1"], port)
    prints = _fingerprints(folder)
    if as_json:
        report = {"folder": str(folder.path), "server": folder.address().server, "days": SERVER_DAYS}
        print_json({**report, "fingerprints": prints})
        return
    print(f"the federation's keys are in {folder.path}, readable by you alone; keep a backup of root.key")
    print(
        f"sites reach the server as {folder.address().server}; its certificate is good for {SERVER_DAYS} days"
    )
    if not host:
        print("only sites on this machine can: give --host NAME for others (`hilum admin renew --host NAME`)")
    print(f"    root       {prints['root']}\n    study key  {prints['study_key']}")


@app.command()
def renew(
    host: Hosts = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535)] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a new server certificate, with the kept root; a server that runs takes it up, sites need nothing new."""
    from hilum.common.security.certificates import covered_hosts, days_left
    from hilum.server.admin.authority import renew_server

    folder = _federation(home)
    made = renew_server(folder, host or [], port)
    used = _take_up(folder)
    if as_json:
        print_json({"hosts": covered_hosts(made), "days": days_left(made), "in_use": used})
        return
    print(
        f"the server's certificate is for {', '.join(covered_hosts(made))}, good for {days_left(made)} days"
    )
    print("the server that runs uses it from now on" if used else "the next `hilum admin serve` uses it")


@app.command()
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
    from dataclasses import replace as changed

    from hilum.common.security.certificates import days_left
    from hilum.common.security.keys import read_paper
    from hilum.common.security.requests import check_name, read_request
    from hilum.server.admin.authority import approve_site

    folder = _federation(home)
    asked = read_request(read_paper(request, "name the site.csr that the site sent"), request.name)
    if name is not None:
        asked = changed(asked, name=check_name(name, "--name"))
    path = out or Path(f"{asked.name}.link.toml")
    link = approve_site(folder, asked, path, replace=replace)
    days, prints = days_left(link.certificate), _fingerprints(folder)
    if as_json:
        report = {"name": asked.name, "link": str(path), "days": days, "fingerprint": asked.fingerprint}
        print_json({**report, "fingerprints": prints})
        return
    print(f"{asked.name} may connect, for {days} days; send {path} to the site")
    print("compare these fingerprints with the site by telephone:")
    print(f"    its key    {asked.fingerprint}")
    print(f"    root       {prints['root']}\n    study key  {prints['study_key']}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The site's name.")], home: Home = None, as_json: AsJson = False
) -> None:
    """Shut a site out, from its next request on."""
    registry = _federation(home).sites()
    try:
        registry.revoke(name)
    finally:
        registry.close()
    if as_json:
        print_json({"name": name, "status": "revoked"})
    else:
        print(f"{name} is shut out; its key is never accepted again")


@app.command()
def sites(home: Home = None, as_json: AsJson = False) -> None:
    """List the sites: approved or revoked, until when, and whether they are connected."""
    from dataclasses import asdict

    from hilum.server.admin.client import AdminClient, NoServerError
    from hilum.server.admin.show import site_lines

    folder = _federation(home)
    registry = folder.sites()
    try:
        found = registry.sites()
    finally:
        registry.close()
    try:
        seen: dict[str, float] | None = AdminClient(folder.file("admin.sock")).seen()
    except NoServerError:
        seen = None
    if as_json:
        print_json([{**asdict(site), "seen_s_ago": (seen or {}).get(site.name)} for site in found])
    else:
        print("\n".join(site_lines(found, seen)))


@app.command("dev-keys")
def dev_keys(
    folder: Annotated[Path, typer.Argument(help="Where to: new or empty.", readable=False)],
    sites: Annotated[int, typer.Option("--sites", min=1, max=1000, help="How many sites.")] = 3,
    host: Hosts = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = _PORT,
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


@app.command()
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


@app.command()
def sign(
    study: Study,
    out: Annotated[Path, typer.Option("--out", help="The signed study to write.", readable=False)],
    site: Annotated[str, typer.Option("--sites", help="Names of the sites that take part: a,b,c.")],
    key: Annotated[Path, typer.Option("--key", help="The key to sign with.", readable=False)],
    run: RunName = None,
    days: Days = 30.0,
    as_json: AsJson = False,
) -> None:
    """Sign a study on another machine than the server's; `submit` takes the file."""
    from hilum.common.files import write_json
    from hilum.common.security.keys import cannot_write
    from hilum.server.admin.plane import signed_to_table

    signed, name = _signed(study, run, _names(site), days, key)
    try:
        write_json(out, signed_to_table(signed))
    except OSError as error:
        raise ConfigError(out.name, [cannot_write(error)]) from None
    if as_json:
        print_json({"run": name, "file": str(out), "days": days})
    else:
        print(f"{out} is signed for {days:g} days: hilum admin submit {out}")


@app.command()
def submit(
    study: Annotated[
        Path, typer.Argument(help="The study file, or what `sign` made of it (.json).", readable=False)
    ],
    site: Annotated[
        str | None,
        typer.Option("--sites", help="Names of the sites that take part: a,b,c; default: all."),
    ] = None,
    run: RunName = None,
    days: Days = 30.0,
    key: StudyKey = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that stopped or failed.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run has finished.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Sign a study and put it into the server's queue."""
    from hilum.server.admin.client import AdminClient

    folder = _federation(home)
    client = AdminClient(folder.file("admin.sock"), patience_s=_SUBMIT_PATIENCE_S)
    if study.suffix == ".json":
        if site is not None or run is not None or key is not None:
            raise ConfigError(
                study.name, ["is signed already: --sites, --run and --key go with `hilum admin sign`"]
            )
        signed = _read_signed(study)
    else:
        names = _approved(folder, study) if site is None else _checked(folder, _names(site))
        signed, _ = _signed(study, run, names, days, key or _own_study_key(folder))
    report = client.submit(signed, resume=resume)
    if not as_json:
        print(f"run {report['run']} is queued for {', '.join(report['sites'])}", flush=True)
    if wait:
        client.wait(report["run"])
        report["state"] = "finished"
    if as_json:
        print_json(report)
    elif wait:
        print(f"run {report['run']} has finished; `hilum admin fetch {report['run']} --out DIR` copies it")


@app.command()
def runs(home: Home = None, as_json: AsJson = False) -> None:
    """List the runs: queued, running, finished, failed and why, or stopped."""
    from dataclasses import asdict

    from hilum.server.admin.runs import all_runs
    from hilum.server.admin.show import run_lines

    found = all_runs(_federation(home))
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        print("\n".join(run_lines(found)))


@app.command()
def stop(run: Run, home: Home = None, as_json: AsJson = False) -> None:
    """Stop a run, or take it out of the queue; its checkpoints stay, and `submit --resume` goes on with it."""
    from hilum.server.admin.client import AdminClient
    from hilum.server.admin.runs import check_run_name

    report = AdminClient(_federation(home).file("admin.sock")).stop(check_run_name(run))
    if as_json:
        print_json(report)
    else:
        print(f"run {run} is stopped" + ("" if report["idle"] else "; it ends what it is computing"))


@app.command()
def fetch(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Where to: new or empty.", readable=False)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Copy a finished run's directory, encoder included."""
    from hilum.server.admin.runs import fetch_run

    fetch_run(hilum_home(home) / "runs", run, out)
    if as_json:
        print_json({"run": run, "folder": str(out)})
    else:
        print(f"run {run} is in {out}")


def _federation(home: Path | None) -> "FederationFolder":
    from hilum.server.admin.authority import FederationFolder

    return FederationFolder(hilum_home(home))


def _fingerprints(folder: "FederationFolder") -> dict[str, str]:
    """Return what the admin reads out, as `hilum site join` shows it."""
    from hilum.common.security.certificates import der_of
    from hilum.common.security.keys import fingerprint

    return {
        "root": fingerprint(der_of(folder.root())),
        "study_key": fingerprint(folder.study_key_text().encode()),
    }


def _take_up(folder: "FederationFolder") -> bool:
    """Let a server that runs use the new certificate; tell whether there is one."""
    from hilum.server.admin.client import AdminClient, NoServerError

    try:
        AdminClient(folder.file("admin.sock")).take_up_certificate()
    except NoServerError:
        return False
    return True


def _own_study_key(folder: "FederationFolder") -> Path:
    """Return the federation's study key, where it is kept here.

    Raises:
        ConfigError: If it is not: then it lies where the admin signs.
    """
    path = folder.file("study.key")
    if not path.exists():
        problem = (
            "is not in the federation's folder; name it with --key, or sign where it is kept with `hilum admin sign` and "
            "submit the file that this writes"
        )
        raise ConfigError(path.name, [problem])
    return path


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _approved(folder: "FederationFolder", study: Path) -> list[str]:
    """Return all sites that are approved, if they are as many as the study has."""
    from hilum.common.config import load_study

    registry = folder.sites()
    try:
        names = [site.name for site in registry.sites() if site.status == "approved"]
    finally:
        registry.close()
    wanted = load_study(study).federation.sites
    if len(names) != wanted:
        advice = "name those that take part with --sites"
        if len(names) < wanted:
            lower = f", or set federation.sites to {len(names)}" if names else ""
            advice = f"approve more sites with `hilum admin approve`{lower}"
        problem = f"federation.sites = {wanted}, and {len(names)} sites are approved ({', '.join(names) or 'none'}); {advice}"
        raise ConfigError(study.name, [problem])
    return names


def _checked(folder: "FederationFolder", names: list[str]) -> list[str]:
    registry = folder.sites()
    try:
        registry.check_approved(names)
    finally:
        registry.close()
    return names


def _signed(
    study: Path, run: str | None, names: list[str], days: float, key: Path
) -> "tuple[SignedStudy, str]":
    import time

    from hilum.common.config import load_study
    from hilum.common.security.keys import read_study_key
    from hilum.common.signing import sign_study
    from hilum.server.admin.runs import check_run_name

    config, secret = load_study(study), read_study_key(key)
    name = check_run_name(run or config.study.name)
    return sign_study(config, run=name, sites=names, days=days, now=time.time(), key=secret), name


def _read_signed(path: Path) -> "SignedStudy":
    import json

    from hilum.common.security.keys import read_paper
    from hilum.server.admin.plane import signed_from_table

    advice = "expected the file that `hilum admin sign` wrote"
    content: Any = read_paper(path, advice)
    try:
        return signed_from_table(json.loads(content))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(path.name, [f"is not a signed study; {advice}"]) from None
