"""Where predictions are to be sent, checked before anything is."""

import re
import ssl
from pathlib import Path

from hilum.client.intake.network.c_store import StoreTarget
from hilum.client.intake.network.pull_options import pull_request
from hilum.client.intake.network.stow import StowTarget
from hilum.common.errors import ConfigError, DataError

_TITLE = re.compile(r"[!-\[\]-~]{1,16}")
_LAST_PORT = 65_535


def stow_target(
    url: str,
    *,
    token_file: Path | None,
    ca: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    insecure_http: bool,
) -> StowTarget:
    """Return the service that `--send` names; address, token and TLS are those of `hilum site pull`.

    Raises:
        ConfigError: If one option has no effect beside the others.
        DataError: If the address, the token or a file can't be used.
    """
    request = pull_request(
        url,
        modalities=(),
        study_date="",
        limit=None,
        token_file=token_file,
        ca=ca,
        client_cert=client_cert,
        client_key=client_key,
        insecure_http=insecure_http,
    )
    return StowTarget(request.address, request.login)


def store_target(
    where: str, *, called: str, calling: str, tls: bool, ca: Path | None, cert: Path | None, key: Path | None
) -> StoreTarget:
    """Return the archive that `--store` names.

    Raises:
        ConfigError: If options of TLS are given without it.
        DataError: If the address, a title or a file can't be used.
    """
    host, _, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _LAST_PORT:
        raise DataError("--store takes HOST:PORT, such as pacs.example:11112")
    for option, title in (("--called", called), ("--calling", calling)):
        if _TITLE.fullmatch(title) is None:
            raise DataError(f"{option} takes an AE title: 1 to 16 plain characters without spaces")
    if not tls and any(file is not None for file in (ca, cert, key)):
        raise ConfigError(
            "send", ["--ca, --client-cert and --client-key go with --send https://..., or with --store-tls"]
        )
    return StoreTarget(host, int(port), called, calling, _context(ca, cert, key) if tls else None)


def _context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    if key is not None and cert is None:
        raise ConfigError("send", ["--client-key needs --client-cert beside it"])
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert is not None:
            context.load_cert_chain(cert, key, password="")  # an empty one, so that nothing is asked
    except OSError:
        raise DataError(
            "the files of --ca, --client-cert and --client-key must be certificates and an unencrypted key in PEM form"
        ) from None
    return context
