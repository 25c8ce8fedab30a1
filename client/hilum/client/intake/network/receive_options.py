"""What `hilum site receive` is asked for, checked before it listens."""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hilum.client.intake.network.association import AllowList, Peer
from hilum.common.errors import ConfigError, DataError


@dataclass(frozen=True)
class Listening:
    """Where and as whom to listen.

    Attributes:
        port: 0 takes a free one.
        tls: Certificate and key files, or None for plain DICOM.
        tls_ca: Certificates that a sender's certificate must come from, or None to ask for none.
    """

    port: int
    bind: str
    ae_title: str
    allowed: AllowList
    tls: tuple[Path, Path] | None = None
    tls_ca: Path | None = None


def listening(
    *,
    port: int,
    bind: str,
    ae_title: str,
    allow: Sequence[str],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
) -> Listening:
    """Return what the options of a command ask for.

    Raises:
        ConfigError: If the options of TLS are not given together.
        DataError: If a title or an address is malformed.
    """
    if (tls_cert is None) != (tls_key is None) or (tls_ca is not None and tls_cert is None):
        raise ConfigError(
            "receive", ["--tls-cert and --tls-key are given together; --tls-ca needs both beside it"]
        )
    if not re.fullmatch(r"[!-\[\]-~]{1,16}", ae_title):
        raise DataError("--ae-title takes 1 to 16 plain characters without spaces")
    allowed = AllowList(tuple(Peer.parse(text) for text in allow))
    tls = None if tls_cert is None or tls_key is None else (tls_cert, tls_key)
    return Listening(port, bind, ae_title, allowed, tls, tls_ca)


def tls_context(where: Listening) -> ssl.SSLContext | None:
    """Return what the receiver shows and asks for, or None for plain DICOM.

    Raises:
        DataError: If the files can't be used.
    """
    if where.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(*where.tls, password="")  # an empty one, so that nothing is asked
        if where.tls_ca is not None:
            context.load_verify_locations(where.tls_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError:
        raise DataError(
            "the files of --tls-cert, --tls-key and --tls-ca must be a certificate, its unencrypted key and the "
            "certificates to believe, in PEM form"
        ) from None
    return context
