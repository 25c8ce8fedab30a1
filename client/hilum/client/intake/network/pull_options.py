"""What `hilum site pull` is asked for, checked before anything is sent."""

import ipaddress
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hilum.client.intake.network.bounded_http import Login
from hilum.common.errors import ConfigError, DataError

_DATES = re.compile(r"\d{8}(-(\d{8})?)?|-\d{8}")


@dataclass(frozen=True)
class Wanted:
    """What to pull.

    Attributes:
        modalities: Codes such as `CT` (0008,0060); empty takes every one.
        study_date: `YYYYMMDD`, `YYYYMMDD-`, `-YYYYMMDD` or a range of two (0008,0020); empty takes every one.
        limit: Most objects to fetch in this call, or None.
    """

    modalities: tuple[str, ...] = ()
    study_date: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        if not all(re.fullmatch(r"[A-Z0-9_]{1,16}", code) for code in self.modalities):
            raise DataError("--modality takes DICOM's codes in capitals, such as CT, MR, DX or CR")
        if self.study_date and not _DATES.fullmatch(self.study_date):
            raise DataError(
                "--study-date takes YYYYMMDD, or a range such as 20240101-20241231, 20240101- or -20241231"
            )
        if self.limit is not None and self.limit < 1:
            raise DataError("--limit takes a whole number above 0")


@dataclass(frozen=True)
class PullRequest:
    """What to pull, and from where.

    Attributes:
        address: Of the service, without a slash at its end.
        login: For the service.
        wanted: What of it to fetch.
    """

    address: str
    login: Login = field(default_factory=Login)
    wanted: Wanted = field(default_factory=Wanted)


def pull_request(
    url: str,
    *,
    modalities: Sequence[str],
    study_date: str,
    limit: int | None,
    token_file: Path | None,
    ca: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    insecure_http: bool,
) -> PullRequest:
    """Return what the options of a command ask for; the token may come from the environment instead.

    Raises:
        ConfigError: If one option has no effect beside the others.
        DataError: If the address, the token, a file or a choice of what to pull can't be used.
    """
    address = _check_address(url, insecure_http=insecure_http)
    wanted = Wanted(tuple(modalities), study_date, limit)
    _check_combination(address, insecure_http=insecure_http, ca=ca, cert=client_cert, key=client_key)
    return PullRequest(address, _login(token_file, ca, client_cert, client_key), wanted)


def _check_address(url: str, *, insecure_http: bool) -> str:
    """Return the service's address without a slash at its end.

    Raises:
        DataError: If it is not an address, holds a password, or would send the data unencrypted.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise DataError("the address is malformed; expected such as https://pacs.example/dicom-web") from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise DataError("the address is malformed; expected such as https://pacs.example/dicom-web")
    if parts.username is not None or parts.password is not None:
        raise DataError(
            "the address holds a user or password, which other users can see; put it in --token-file"
        )
    if parts.scheme == "http" and not insecure_http and not _is_loopback(host):
        raise DataError(
            "http:// sends patient data unencrypted; use https://, or --insecure-http on a network that protects it"
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authorization(token: str) -> str:
    """Return the header for a token; `Basic ...` and `Bearer ...` are taken as they stand.

    Raises:
        DataError: If it is empty or has characters that a header can't.
    """
    text = token.strip()
    if not text or not text.isascii() or not text.isprintable():
        raise DataError(
            "the token is empty, or has characters that no token has; it is one line of plain text"
        )
    return text if text.startswith(("Bearer ", "Basic ")) else f"Bearer {text}"


def _check_combination(
    address: str, *, insecure_http: bool, ca: Path | None, cert: Path | None, key: Path | None
) -> None:
    """Refuse what would have no effect: whoever gives it believes in a protection that is not there, or a danger."""
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


def _login(token_file: Path | None, ca: Path | None, cert: Path | None, key: Path | None) -> Login:
    """Return what is shown to the server; the token comes from a file or the environment, never from the command line."""
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
        authorization=_authorization(token) if token_file is not None or token else "",
        ca=None if ca is None else str(ca),
        client=client,
    )
    _check_files(login)
    return login


def _check_files(login: Login) -> None:
    """See that the certificates and the key can be used, before anything is sent.

    Raises:
        DataError: Naming the option.
    """
    context = ssl.create_default_context()
    try:
        if login.ca is not None:
            context.load_verify_locations(login.ca)
    except OSError:
        raise DataError("the file of --ca holds no certificate in PEM form") from None
    try:
        if login.client is not None:
            context.load_cert_chain(*login.client, password="")  # an empty one, so that nothing is asked
    except OSError:
        raise DataError(
            "--client-cert and --client-key are not a pair of a certificate and its unencrypted key in PEM form"
        ) from None
