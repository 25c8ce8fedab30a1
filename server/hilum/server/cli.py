"""The federation admin's commands: `hilum admin ...`."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.errors import FederationError, RunError
from hilum.common.home import hilum_home

app = typer.Typer(no_args_is_help=True, help="For the federation admin: serve, submit, fetch.")

Server = Annotated[str, typer.Option("--server", help="The server's address, HOST:PORT.")]
RootCertificate = Annotated[
    Path, typer.Option("--root-certificate", help="The server's root.crt.", readable=False)
]


def register(root: typer.Typer) -> None:
    """Add this portion's commands to `hilum`."""
    root.add_typer(app, name="admin")


@app.command("dev-keys")
def dev_keys(
    folder: Annotated[
        Path, typer.Argument(help="Where to write keys and certificates: new or empty.", readable=False)
    ],
    sites: Annotated[int, typer.Option("--sites", min=1, help="How many sites.")] = 3,
    host: Annotated[
        str, typer.Option("--host", help="The name under which sites reach the server.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 9443,
    as_json: AsJson = False,
) -> None:
    """Make certificates and keys to try a deployment with; a real site makes its own key."""
    from hilum.server.certificates import DAYS, write_development_keys

    links = write_development_keys(folder, sites=sites, host=host, port=port)
    if as_json:
        print_json({"folder": str(folder), "links": [str(link) for link in links], "days": DAYS})
        return
    print(f"keys for the server and {sites} sites are in {folder}, good for {DAYS} days")
    print("put each site-N.link.toml into that site's site file")


@app.command()
def serve(
    keys: Annotated[Path, typer.Argument(help="The folder of keys and certificates.", readable=False)],
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 9443,
    home: Home = None,
) -> None:
    """Serve a federation on one HTTPS port until stopped."""
    from hilum.server.superlink import serve as serve_until_stopped

    serve_until_stopped(host=host, port=port, keys=keys.absolute(), home=hilum_home(home))


@app.command()
def submit(
    study: Annotated[Path, typer.Argument(help="The study file.", readable=False)],
    server: Server,
    root_certificate: RootCertificate,
    run: Annotated[str | None, typer.Option("--run", help="The run's name; default: the study's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run of this name.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run has finished.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a study on the connected sites."""
    from hilum.common.config import load_study
    from hilum.server.app import check_run_name
    from hilum.server.control import ServerLink, submit, wait_for

    config = load_study(study)
    name = check_run_name(run or config.study.name)
    link = ServerLink(server, root_certificate)
    flower_run = submit(link, config, name, resume=resume)
    report = {"run": name, "flower_run": str(flower_run), "status": "submitted"}
    if wait:
        status = wait_for(link, flower_run)
        report["status"] = status.outcome
        if status.outcome != "completed":
            raise FederationError(f"the run {status.outcome}: {status.details}")
    if as_json:
        print_json(report)
    else:
        print(f"run {name}: {report['status']} (Flower run {flower_run})")


@app.command()
def stop(
    flower_run: Annotated[int, typer.Argument(help="The Flower run that `submit` printed.")],
    server: Server,
    root_certificate: RootCertificate,
    as_json: AsJson = False,
) -> None:
    """Stop a run; its checkpoints stay, and `submit --resume` goes on with it."""
    from hilum.server.control import ServerLink, stop_run

    if not stop_run(ServerLink(server, root_certificate), flower_run):
        raise FederationError("the server did not stop the run; has it finished?")
    if as_json:
        print_json({"flower_run": str(flower_run), "status": "stopped"})
    else:
        print(f"Flower run {flower_run} is stopped")


@app.command()
def runs(home: Home = None, as_json: AsJson = False) -> None:
    """List the runs on this server."""
    folder = hilum_home(home) / "runs"
    found = [_summary(path) for path in sorted(folder.glob("*/study.resolved.toml"))]
    if as_json:
        print_json(found)
        return
    for one in found:
        print(f"{one['run']}: {one['rounds']} rounds, {'finished' if one['finished'] else 'not finished'}")
    if not found:
        print("no run yet")


@app.command()
def fetch(
    run: Annotated[str, typer.Argument(help="The run's name.")],
    out: Annotated[Path, typer.Option("--out", help="Where to: new or empty.", readable=False)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Copy a finished run's directory, encoder included."""
    from hilum.server.app import check_run_name

    source = hilum_home(home) / "runs" / check_run_name(run)
    if not (source / "results.json").exists():
        raise RunError("there is no finished run of this name; `hilum admin runs` lists them")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError("the output folder is not empty; name a folder that is new or empty")
    shutil.copytree(source, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints"))
    if as_json:
        print_json({"run": run, "folder": str(out)})
    else:
        print(f"run {run} is in {out}")


def _summary(study_file: Path) -> dict[str, object]:
    folder = study_file.parent
    rounds = folder / "rounds.jsonl"
    return {
        "run": folder.name,
        "rounds": len(rounds.read_text().splitlines()) if rounds.exists() else 0,
        "finished": (folder / "results.json").exists(),
    }
