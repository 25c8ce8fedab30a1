"""`hilum site pull` and `hilum site receive`: what the network brings."""

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
    from hilum.client.intake.indexing.index import IndexReport


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
    from hilum.client.intake.arrivals import pull_and_index
    from hilum.client.intake.network.pull_options import pull_request
    from hilum.client.intake.network.shutdown import stop_signals
    from hilum.client.intake.silence import silence_libraries
    from hilum.client.intake.sources.inbox import GIB
    from hilum.client.state.workspace import Workspace
    from hilum.common.errors import DataError

    silence_libraries()
    request = pull_request(
        url,
        modalities=modality or (),
        study_date=study_date,
        limit=limit,
        token_file=token_file,
        ca=ca,
        client_cert=client_cert,
        client_key=client_key,
        insecure_http=insecure_http,
    )
    workspace = Workspace(hilum_home(home) / "site")
    with stop_signals() as stop:
        done = pull_and_index(request, workspace, progress_bar, stop, reserve_bytes=int(keep_free * GIB))
    pulled = done.pull
    counts = {**asdict(done.index.counts), "decoded": done.index.decoded, "removed": done.index.removed}
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
    from hilum.client.intake.arrivals import receive_and_index
    from hilum.client.intake.network.receive_options import listening
    from hilum.client.intake.network.shutdown import stop_signals
    from hilum.client.intake.silence import silence_libraries
    from hilum.client.intake.sources.inbox import GIB
    from hilum.client.state.workspace import Workspace

    silence_libraries()
    where = listening(
        port=port,
        bind=bind,
        ae_title=ae_title,
        allow=allow,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_ca=tls_ca,
    )
    with stop_signals() as stop:
        report = receive_and_index(
            where,
            Workspace(hilum_home(home) / "site"),
            stop,
            max_bytes=int(max_object * GIB),
            reserve_bytes=int(keep_free * GIB),
            index_every_s=index_every,
            ready=lambda found: _say(f"listening on port {found} as {ae_title}"),
            tell=_say_indexed,
            warn=lambda text: _say(f"not indexed now: {text}"),
        )
    if as_json:
        print_json(asdict(report))
        return
    print(f"{report.stored:8} objects received")
    print(f"{report.repeated:8} objects received again, unchanged")
    for code, count in report.refused.items():
        print(f"{count:8} refused: {code.replace('_', ' ')}")


def _say_indexed(report: "IndexReport") -> None:
    counts = report.counts
    skipped = sum(counts.skipped.values())
    _say(f"indexed: {counts.instances} instances, {counts.volumes} volumes, {skipped} set aside")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
