"""`hilum site pull` and `hilum site receive`: what the network brings."""

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilum.client.commands.counts import show_counts
from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home
from hilum.common.progress import progress_bar

if TYPE_CHECKING:
    import threading

    from hilum.client.intake.network.bounded_http import Login
    from hilum.client.state.workspace import Workspace


def pull(
    url: Annotated[str, typer.Argument(help="The DICOMweb service, such as https://pacs.example/dicom-web.")],
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", help="Holds the access token; else HILUM_DICOMWEB_TOKEN is used.", readable=False
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", help="Certificates to believe, PEM; default: the public ones.", readable=False),
    ] = None,
    client_cert: Annotated[
        Path | None, typer.Option("--client-cert", help="This site's certificate, PEM.", readable=False)
    ] = None,
    client_key: Annotated[
        Path | None, typer.Option("--client-key", help="The key of --client-cert, PEM.", readable=False)
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
    from hilum.client.intake.indexing.index import index_archive
    from hilum.client.intake.network.dicomweb import Wanted, check_address
    from hilum.client.intake.network.dicomweb import pull as pull_service
    from hilum.client.intake.network.shutdown import Stoppable, StoppedError, silence_libraries, stop_signals
    from hilum.client.intake.sources.inbox import GIB, Inbox
    from hilum.client.intake.sources.sources import count_files
    from hilum.client.state.workspace import Workspace
    from hilum.common.errors import DataError, RunError

    silence_libraries()
    address = check_address(url, insecure_http=insecure_http)
    wanted = Wanted(tuple(modality or ()), study_date, limit)
    _check_combination(address, insecure_http=insecure_http, ca=ca, cert=client_cert, key=client_key)
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
        show_counts(counts, as_json=False)
    if pulled.failed:
        raise DataError(
            f"{sum(pulled.failed.values())} of {pulled.listed} objects could not be had; the report says why, and "
            "running again tries them again"
        )


def receive(
    allow: Annotated[
        list[str],
        typer.Option("--allow", help="Who may send, as AE@ADDRESS; repeatable. Others are rejected."),
    ],
    port: Annotated[int, typer.Option("--port", help="Port to listen on.", min=0, max=65535)] = 11112,
    ae_title: Annotated[str, typer.Option("--ae-title", help="This receiver's AE title.")] = "HILUM",
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Certificate, PEM: TLS is required.", readable=False)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", help="The key of --tls-cert, PEM.", readable=False)
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-ca", help="Senders must show a certificate that these signed, PEM.", readable=False
        ),
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
    from hilum.client.intake.network.association import AllowList, Peer
    from hilum.client.intake.network.receive import Listening, Receiver, serve
    from hilum.client.intake.network.shutdown import silence_libraries, stop_signals
    from hilum.client.intake.sources.inbox import GIB, Inbox
    from hilum.client.state.workspace import Workspace
    from hilum.common.errors import ConfigError, DataError

    silence_libraries()
    if (tls_cert is None) != (tls_key is None) or (tls_ca is not None and tls_cert is None):
        raise ConfigError(
            "receive", ["--tls-cert and --tls-key are given together; --tls-ca needs both beside it"]
        )
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


def _check_combination(
    address: str, *, insecure_http: bool, ca: Path | None, cert: Path | None, key: Path | None
) -> None:
    """Refuse what would have no effect: whoever gives it believes in a protection that is not there, or a danger."""
    from hilum.common.errors import ConfigError

    encrypted = address.startswith("https:")
    if not encrypted and any(file is not None for file in (ca, cert, key)):
        raise ConfigError(
            "pull",
            ["--ca, --client-cert and --client-key go with an https:// address; http:// uses none of them"],
        )
    if encrypted and insecure_http:
        raise ConfigError("pull", ["--insecure-http goes with an http:// address; leave it out"])
    if key is not None and cert is None:
        raise ConfigError("pull", ["--client-key needs --client-cert beside it"])


def _login(token_file: Path | None, ca: Path | None, cert: Path | None, key: Path | None) -> "Login":
    """Return what `pull` shows the server; the token comes from a file or the environment, never from the command line."""
    import os

    from hilum.client.intake.network.bounded_http import Login, check_files
    from hilum.client.intake.network.dicomweb import authorization
    from hilum.common.errors import DataError

    for option, file in (
        ("--token-file", token_file),
        ("--ca", ca),
        ("--client-cert", cert),
        ("--client-key", key),
    ):
        if file is not None and (file.is_dir() or not os.access(file, os.R_OK)):
            raise DataError(f"the file of {option} is missing or can't be read")
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
    from hilum.client.intake.indexing.index import index_archive
    from hilum.client.intake.network.shutdown import Stoppable, StoppedError
    from hilum.common.errors import RunError
    from hilum.common.progress import NullProgress

    try:
        counts = index_archive(None, workspace, Stoppable(NullProgress(), stop)).counts
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
