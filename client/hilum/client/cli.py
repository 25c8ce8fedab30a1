"""The site engineer's commands: `hilum site ...`."""

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.client.browse_cli import browse
from hilum.client.describe_cli import describe
from hilum.client.quarantine_cli import quarantine
from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home
from hilum.common.progress import progress_bar

if TYPE_CHECKING:
    import threading

    from hilum.client.intake.bounded_http import Login
    from hilum.client.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="For the site engineer: index, train and take part.")

Study = Annotated[Path, typer.Argument(help="The study file.", readable=False)]
SiteFile = Annotated[Path, typer.Argument(help="The site file.", readable=False)]


def register(root: typer.Typer) -> None:
    """Add this portion's commands to `hilum`."""
    root.add_typer(app, name="site")


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="The folder of DICOM files; it is only read.", readable=False)],
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and index again whenever it has changed.")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", help="Seconds between two looks of --watch.", min=1)
    ] = 60.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Index an archive. A second call reads only what has changed."""
    from hilum.client.intake.index import IndexReport, index_archive
    from hilum.client.intake.sources import count_files
    from hilum.client.workspace import Workspace
    from hilum.common.errors import DataError

    def tell(report: IndexReport) -> None:
        counts = {**asdict(report.counts), "decoded": report.decoded, "removed": report.removed}
        _show_counts(counts, as_json=as_json)
        sys.stdout.flush()

    workspace = Workspace(hilum_home(home) / "site")
    if watch:
        from hilum.client.intake.stopping import stop_signals
        from hilum.client.intake.watch import watch as watch_folder

        def warn(text: str) -> None:
            print(f"waiting: {text}", file=sys.stderr, flush=True)

        with stop_signals() as stop:
            watch_folder(folder, workspace, every, stop, progress_bar, tell, warn)
        return
    with progress_bar("indexing", count_files(folder, workspace)) as progress:
        report = index_archive(folder, workspace, progress)
    tell(report)
    if report.counts.instances == 0:
        raise DataError(
            f"none of {report.counts.files} files is a usable image; the reasons are listed above"
        )


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show what is indexed. This is for the site alone: nothing of it is sent."""
    from hilum.client.status import site_status, status_lines
    from hilum.client.workspace import Workspace

    found = site_status(Workspace(hilum_home(home) / "site"))
    if as_json:
        print_json(found)
    else:
        print("\n".join(status_lines(found)))


@app.command()
def pretrain(
    study: Study,
    site: SiteFile,
    out: Annotated[
        Path, typer.Option("--out", help="Where to write the encoder; new or empty.", readable=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Pre-train alone, with the study's whole schedule. A killed call goes on where it was."""
    import hashlib

    from hilum.client.pretraining.site import pretrain_alone
    from hilum.client.site_data import open_site
    from hilum.client.workspace import Workspace
    from hilum.common.config import load_site, load_study, study_to_toml
    from hilum.common.errors import RunError
    from hilum.common.export import Made, write_encoder
    from hilum.common.methods import build_method
    from hilum.common.methods.parts import federated_manifest

    what, where = load_study(study), load_site(site)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError("the output folder is not empty; name a folder that is new or empty")
    data = open_site(where, what)
    digest = hashlib.sha256(study_to_toml(what).encode()).hexdigest()
    folder = Workspace(where.state.folder).run(f"{what.study.name}-alone-{digest[:12]}")
    with progress_bar("pre-training", what.federation.rounds) as progress:
        weights = pretrain_alone(data, what, folder, device=where.compute.device, progress=progress)
    manifest = federated_manifest(build_method(what))
    sha256 = write_encoder(out, what, manifest, weights, Made(rounds=what.federation.rounds, sites=1))
    if as_json:
        print_json({"encoder_sha256": sha256, "examples": len(data.split.pretrain)})
    else:
        print(f"encoder written to {out} (SHA-256 {sha256})")


@app.command()
def evaluate(
    study: Study,
    site: SiteFile,
    encoder: Annotated[
        Path, typer.Option("--encoder", help="The `encoder` folder of a run.", readable=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Fine-tune and measure an encoder on this site's labels, beside the floors. Its rows are named `federated`."""
    from hilum.client.evaluation.protocol import combinations_count, evaluate_site
    from hilum.client.pretraining.device import make_fabric
    from hilum.client.site_data import open_site
    from hilum.common.config import load_site, load_study
    from hilum.common.export import read_encoder

    what, where = load_study(study), load_site(site)
    encoders = {"federated": read_encoder(encoder, what).weights}
    data = open_site(where, what)
    fabric = make_fabric(where.compute.device, what.training.precision, what.training.threads)
    with progress_bar("evaluating", combinations_count(what, encoders)) as progress:
        found = evaluate_site(data, what, encoders, fabric, progress).to_json()
    if as_json:
        print_json(found)
        return
    for row in found["rows"]:
        interval = f"{row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
        print(
            f"{row['protocol']:9} {row['label_fraction']:5.0%} {row['arm']:11} {row['metric']:18} {interval}"
        )


@app.command()
def start(site: SiteFile) -> None:
    """Take part in the federation until stopped: one outbound TLS connection, restarted whenever it ends."""
    from hilum.client.supernode import keep_running
    from hilum.common.config import load_site

    keep_running(load_site(site), site.absolute())


@app.command()
def pull(
    url: Annotated[str, typer.Argument(help="The DICOMweb service, such as https://pacs.example/dicom-web.")],
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="Holds the access token; else HILUM_DICOMWEB_TOKEN is used."),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", help="Certificates to believe, PEM; default: the public ones.")
    ] = None,
    client_cert: Annotated[
        Path | None, typer.Option("--client-cert", help="This site's certificate, PEM.")
    ] = None,
    client_key: Annotated[
        Path | None, typer.Option("--client-key", help="The key of --client-cert, PEM.")
    ] = None,
    modality: Annotated[
        list[str] | None, typer.Option("--modality", help="Pull only this modality, such as CT; repeatable.")
    ] = None,
    study_date: Annotated[
        str, typer.Option("--study-date", help="Pull only these dates, such as 20240101-20241231.")
    ] = "",
    limit: Annotated[int | None, typer.Option("--limit", help="Fetch at most so many objects.")] = None,
    keep_free: Annotated[
        float, typer.Option("--keep-free", help="GiB of the disk that stay free.", min=0)
    ] = 2.0,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Allow http://, which anyone on the way can read.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Fetch what a DICOMweb service has and the inbox lacks, then index it. A killed call goes on where it was."""
    from hilum.client.intake.dicomweb import Wanted, check_address
    from hilum.client.intake.dicomweb import pull as pull_service
    from hilum.client.intake.inbox import GIB, Inbox
    from hilum.client.intake.index import index_archive
    from hilum.client.intake.sources import count_files
    from hilum.client.intake.stopping import Stoppable, StoppedError, silence_libraries, stop_signals
    from hilum.client.workspace import Workspace
    from hilum.common.errors import DataError, RunError

    silence_libraries()
    address = check_address(url, insecure_http=insecure_http)
    wanted = Wanted(tuple(modality or ()), study_date, limit)
    login = _login(token_file, ca, client_cert, client_key)
    workspace = Workspace(hilum_home(home) / "site")
    try:
        with stop_signals() as stop:
            with Inbox(workspace, reserve_bytes=int(keep_free * GIB)) as inbox:
                pulled = pull_service(address, login, wanted, inbox, progress_bar, stop)
            with progress_bar("indexing", count_files(None, workspace)) as progress:
                report = index_archive(None, workspace, Stoppable(progress, stop))
    except StoppedError:
        raise RunError("stopped before the end; what was fetched is kept, run again to go on") from None
    counts = {**asdict(report.counts), "decoded": report.decoded, "removed": report.removed}
    if as_json:
        print_json({"pull": asdict(pulled), "catalogue": counts})
    else:
        print(f"{pulled.listed:8} objects listed by the server")
        print(f"{pulled.had:8} of them were here before")
        print(f"{pulled.fetched:8} of them fetched ({pulled.fetched_bytes / 1e6:.1f} MB)")
        for code, count in pulled.failed.items():
            print(f"{count:8} could not be had: {code.replace('_', ' ')}")
        _show_counts(counts, as_json=False)
    if pulled.failed:
        raise DataError(
            f"{sum(pulled.failed.values())} of {pulled.listed} objects could not be had; the report says why, and "
            "running again tries them again"
        )


app.command()(describe)
app.command()(quarantine)
app.command()(browse)


@app.command()
def receive(
    allow: Annotated[
        list[str],
        typer.Option("--allow", help="Who may send, as AE@ADDRESS; repeatable. Others are rejected."),
    ],
    port: Annotated[int, typer.Option("--port", help="Port to listen on.", min=0, max=65535)] = 11112,
    ae_title: Annotated[str, typer.Option("--ae-title", help="This receiver's AE title.")] = "HILUM",
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Certificate, PEM: TLS is required.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="The key of --tls-cert, PEM.")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option("--tls-ca", help="Senders must show a certificate that these signed, PEM.")
    ] = None,
    bind: Annotated[str, typer.Option("--bind", help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - who may send is listed
    index_every: Annotated[
        float,
        typer.Option("--index-every", help="Seconds after which what came is indexed, at the latest.", min=1),
    ] = 60.0,
    max_object: Annotated[
        float, typer.Option("--max-object", help="Largest object that is taken, GiB.", min=0)
    ] = 4.0,
    keep_free: Annotated[
        float, typer.Option("--keep-free", help="GiB of the disk that stay free.", min=0)
    ] = 2.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Receive images by C-STORE from listed senders until stopped, and index them."""
    from hilum.client.intake.association import AllowList, Peer
    from hilum.client.intake.inbox import GIB, Inbox
    from hilum.client.intake.receive import Listening, Receiver, serve
    from hilum.client.intake.stopping import silence_libraries, stop_signals
    from hilum.client.workspace import Workspace
    from hilum.common.errors import DataError

    silence_libraries()
    if (tls_cert is None) != (tls_key is None) or (tls_ca is not None and tls_cert is None):
        raise DataError("--tls-cert and --tls-key are given together; --tls-ca needs both beside it")
    if not re.fullmatch(r"[!-\[\]-~]{1,16}", ae_title):
        raise DataError("--ae-title takes 1 to 16 plain characters without spaces")
    allowed = AllowList(tuple(Peer.parse(text) for text in allow))
    tls = None if tls_cert is None or tls_key is None else (tls_cert, tls_key)
    where = Listening(port, bind, ae_title, allowed, tls, tls_ca)
    workspace = Workspace(hilum_home(home) / "site")
    limits = {"max_bytes": int(max_object * GIB), "reserve_bytes": int(keep_free * GIB)}
    with stop_signals() as stop, Inbox(workspace, **limits) as inbox:
        receiver = Receiver(where, inbox)
        serve(
            receiver,
            stop,
            index_every,
            lambda: _index_inbox(workspace, stop),
            lambda found: print(f"listening on port {found} as {ae_title}", file=sys.stderr, flush=True),
        )
    report = receiver.report()
    if as_json:
        print_json(asdict(report))
        return
    print(f"{report.stored:8} objects received")
    print(f"{report.repeated:8} objects received again, unchanged")
    for code, count in report.refused.items():
        print(f"{count:8} refused: {code.replace('_', ' ')}")


def _show_counts(counts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(counts)
        return
    from hilum.client.intake.reasons import EXPLAINED, Reason

    for name in ("files", "instances", "series", "volumes", "patients"):
        print(f"{counts[name]:8} {name}")
    for reason, count in counts["skipped"].items():
        print(f"{count:8} skipped: {EXPLAINED[Reason(reason)]} ({reason})")
    if "decoded" in counts:
        print(f"{counts['decoded']:8} files had their pixels read in this call")


def _login(token_file: Path | None, ca: Path | None, cert: Path | None, key: Path | None) -> "Login":
    """What `pull` shows the server; the token comes from a file or the environment, never from the command line."""
    import os

    from hilum.client.intake.bounded_http import Login, check_files
    from hilum.client.intake.dicomweb import authorization
    from hilum.common.errors import DataError

    for option, file in (
        ("--token-file", token_file),
        ("--ca", ca),
        ("--client-cert", cert),
        ("--client-key", key),
    ):
        if file is not None and not os.access(file, os.R_OK):
            raise DataError(f"the file of {option} is missing or can't be read")
    if key is not None and cert is None:
        raise DataError("--client-key needs --client-cert beside it")
    token = os.environ.get("HILUM_DICOMWEB_TOKEN", "")
    if token_file is not None:
        token = token_file.read_bytes().decode(errors="replace")
    client = None if cert is None else (str(cert), str(key if key is not None else cert))
    login = Login(
        authorization=authorization(token) if token_file is not None or token else "",
        ca=None if ca is None else str(ca),
        client=client,
    )
    check_files(login)
    return login


def _index_inbox(workspace: "Workspace", stop: "threading.Event") -> bool:
    """Index what came and say the counts; False if another process holds the site, or this one is to end."""
    from hilum.client.intake.index import index_archive
    from hilum.client.intake.stopping import Stoppable, StoppedError
    from hilum.common.errors import RunError
    from hilum.common.progress import Quiet

    try:
        counts = index_archive(None, workspace, Stoppable(Quiet(), stop)).counts
    except RunError as error:
        print(f"not indexed now: {error}", file=sys.stderr, flush=True)
        return False
    except StoppedError:
        return False
    print(
        f"indexed: {counts.instances} instances, {counts.volumes} volumes, {sum(counts.skipped.values())} set aside",
        file=sys.stderr,
        flush=True,
    )
    return True
