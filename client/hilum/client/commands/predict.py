"""`hilum site predict` and `hilum site send`: what a model of this site's says of its images, as files, and on to a PACS."""

import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.common.cli import AsJson, print_json
from hilum.common.progress import progress_bar

if TYPE_CHECKING:
    from hilum.client.predictions.delivery import Delivered, Delivery
    from hilum.client.predictions.run import Report


class Device(StrEnum):
    """Where the model computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


Send = Annotated[
    str | None,
    typer.Option("--send", help="A DICOMweb service that the objects are sent to (STOW-RS).", metavar="URL"),
]
Store = Annotated[
    str | None,
    typer.Option("--store", help="An archive that they are sent to (C-STORE).", metavar="HOST:PORT"),
]
Called = Annotated[str | None, typer.Option("--called", help="The AE title of the archive of --store.")]
Calling = Annotated[str | None, typer.Option("--calling", help="This site's AE title; default: HILUM.")]
StoreTls = Annotated[bool, typer.Option("--store-tls", help="Speak to the archive of --store with TLS.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="Holds the access token of --send; else HILUM_DICOMWEB_TOKEN is used.",
        readable=False,
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option("--ca", help="Certificates to believe, PEM; default: the public ones.", readable=False),
]
ClientCert = Annotated[
    Path | None, typer.Option("--client-cert", help="This site's certificate, PEM.", readable=False)
]
ClientKey = Annotated[
    Path | None, typer.Option("--client-key", help="The key of --client-cert, PEM.", readable=False)
]
InsecureHttp = Annotated[
    bool,
    typer.Option("--insecure-http", help="Allow http:// in --send, which anyone on the way can read."),
]
_SHOWN = 10  # lines of one outcome on the screen


def predict(
    model: Annotated[
        Path, typer.Argument(help="The folder of a model that `hilum site finetune` wrote.", readable=False)
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="IN", help="A folder of DICOM, NIfTI or pictures; it is only read.", readable=False
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write; new or empty.", readable=False)],
    *,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write pictures of masks and boxes over their images, too.")
    ] = False,
    device: Annotated[Device, typer.Option("--device", help="Where to compute.")] = Device.AUTO,
    send: Send = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    insecure_http: InsecureHttp = False,
    store: Store = None,
    called: Called = None,
    calling: Calling = None,
    store_tls: StoreTls = False,
    as_json: AsJson = False,
) -> None:
    """Predict a folder of images with a model, and write DICOM SEG and SR, NIfTI and a table. They hold patients' data."""
    from datetime import UTC, datetime

    from hilum.client.intake.silence import silence_libraries
    from hilum.client.predictions.model import open_model
    from hilum.client.predictions.run import predict_folder
    from hilum.common.errors import DataError

    to = _delivery(
        send, token_file, ca, client_cert, client_key, store, called, calling,
        insecure_http=insecure_http, store_tls=store_tls, needed=False,
    )  # fmt: skip
    silence_libraries()
    now = datetime.now(UTC).astimezone()
    opened = open_model(model, device.value)
    report = predict_folder(opened, folder, out, progress_bar, overlay=overlay, at=now)
    if not as_json:
        _show(report, out)
    delivered = _deliver(report.objects, to, out)
    if as_json:
        told = {"counts": report.counts, "reasons": report.reasons, "objects": len(report.objects)}
        print_json({"out": str(out), **told, "delivered": [asdict(one) for one in delivered]})
    else:
        _show_delivered(delivered)
    _check_delivered(delivered, out)
    if lost := report.counts.get("not_written", 0):
        raise DataError(
            f"{lost} predictions could not be written; {out / 'predictions.csv'} says why, beside their values"
        )


def send(
    folder: Annotated[Path, typer.Argument(help="A folder that `hilum site predict` wrote.", readable=False)],
    *,
    send: Send = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    insecure_http: InsecureHttp = False,
    store: Store = None,
    called: Called = None,
    calling: Calling = None,
    store_tls: StoreTls = False,
    as_json: AsJson = False,
) -> None:
    """Send predictions that were written before to an archive. What it holds already stays one object there."""
    from hilum.client.intake.silence import silence_libraries
    from hilum.client.predictions.delivery import objects_in

    to = _delivery(
        send, token_file, ca, client_cert, client_key, store, called, calling,
        insecure_http=insecure_http, store_tls=store_tls, needed=True,
    )  # fmt: skip
    silence_libraries()
    delivered = _deliver(objects_in(folder), to, folder)
    if as_json:
        print_json([asdict(one) for one in delivered])
    else:
        _show_delivered(delivered)
    _check_delivered(delivered, folder)


def _delivery(
    send: str | None,
    token_file: Path | None,
    ca: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    store: str | None,
    called: str | None,
    calling: str | None,
    *,
    insecure_http: bool,
    store_tls: bool,
    needed: bool,
) -> "Delivery":
    """Return where the options send to; what would have no effect is refused.

    Raises:
        ConfigError: If an option has no effect beside the others, or one is missing.
    """
    from hilum.client.intake.network.send_options import store_target, stow_target
    from hilum.client.predictions.delivery import Delivery
    from hilum.common.errors import ConfigError

    def refuse(problem: str) -> None:
        raise ConfigError("send", [problem])

    if (store is None) != (called is None):
        refuse("--store and --called are given together")
    if store is None and (calling is not None or store_tls):
        refuse("--calling and --store-tls go with --store")
    if send is None and (token_file is not None or insecure_http):
        refuse("--token-file and --insecure-http go with --send")
    files = (ca, client_cert, client_key)
    over_https = send is not None and send.startswith("https:")
    if any(file is not None for file in files) and not (over_https or store_tls):
        refuse("--ca, --client-cert and --client-key go with --send https://..., or with --store-tls")
    if needed and send is None and store is None:
        refuse("say where to with --send URL, or with --store HOST:PORT")
    web, archive = None, None
    if send is not None:
        of_web = dict(
            zip(("ca", "client_cert", "client_key"), files if over_https else (None,) * 3, strict=True)
        )
        web = stow_target(send, token_file=token_file, insecure_http=insecure_http, **of_web)
    if store is not None and called is not None:
        ca, cert, key = files if store_tls else (None, None, None)
        archive = store_target(
            store, called=called, calling=calling or "HILUM", tls=store_tls, ca=ca, cert=cert, key=key
        )
    return Delivery(web, archive)


def _deliver(objects: Any, to: "Delivery", folder: Path) -> "list[Delivered]":
    """Send, and say of a failure that the files stay."""
    from hilum.client.intake.network.bounded_http import ServiceError
    from hilum.client.predictions.delivery import deliver

    if not to:
        return []
    try:
        return deliver(objects, to, progress_bar)
    except ServiceError as error:
        raise ServiceError(
            f"{error}; the files stay in {folder}: `hilum site send {folder} ...` sends them"
        ) from None


def _show(report: "Report", out: Path) -> None:
    from hilum.client.predictions.table import MEANINGS

    for outcome, count in report.counts.items():
        print(f"{count:8} {MEANINGS[outcome]}")
        for reason, of_one in report.reasons.get(outcome, {}).items():
            print(f"{'':8} {of_one} {reason}")
            named = [line.source for line in report.lines if (line.outcome, line.reason) == (outcome, reason)]
            for name in named[:_SHOWN]:
                print(f"{'':10} {ascii(name)[1:-1]}")
            if of_one > _SHOWN:
                print(f"{'':10} and {of_one - _SHOWN} more, in predictions.csv")
    print(
        f"{len(report.objects):8} DICOM objects\nwritten to {out}: they hold patients' data and stay in the hospital"
    )
    sys.stdout.flush()


def _show_delivered(delivered: "list[Delivered]") -> None:
    for one in delivered:
        print(f"{one.stored:8} stored by {one.way}")
        for code, count in one.problems.items():
            print(f"{count:8} not stored by {one.way}: {code.replace('_', ' ')}")


def _check_delivered(delivered: "list[Delivered]", folder: Path) -> None:
    """Raise a DataError where an archive does not hold all."""
    from hilum.common.errors import DataError

    lost = sum(sum(one.problems.values()) for one in delivered)
    if lost:
        raise DataError(
            f"{lost} objects are not in the archive; the lines above say why, the files stay in {folder}: once that is mended, "
            f"`hilum site send {folder} ...` sends them again"
        )
