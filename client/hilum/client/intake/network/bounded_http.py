"""HTTP to a server that is not trusted: every answer has a largest size, a latest time and an expected type.

The bodies of errors are never read, and no address is ever shown: study and series UIDs stand in it.
"""

import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

import requests
from requests.exceptions import SSLError
from urllib3.exceptions import DecodeError
from urllib3.exceptions import HTTPError as TransportError

from hilum.common.errors import DataError

MAX_JSON_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 16
_CONNECT_S, _READ_S = 10.0, 60.0
_JSON_DEADLINE_S, _OBJECT_DEADLINE_S = 300.0, 3600.0
_FIRST_WAIT_S = 0.5
_ATTEMPTS = 6  # with waits of 0.5, 1, 2, 4 and 8 s between them
_NO_TLS = frozenset({"wrong version number", "record layer failure", "http request"})
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})

Answer = TypeVar("Answer")


class ServiceError(DataError):
    """The DICOMweb service can't be used; the pull ends."""


class FetchError(Exception):
    """One object can't be had; the pull counts it under this code, and goes on."""


class TransientError(Exception):
    """Worth another try, which the pull makes: the connection broke, or the server is busy.

    Attributes:
        status: What the server answered, or None.
        tls: Whether it broke off while TLS was agreed on.
    """

    def __init__(self, status: int | None = None, *, tls: bool = False) -> None:
        super().__init__()
        self.status, self.tls = status, tls


@dataclass(frozen=True)
class Login:
    """How this site proves who it is, and whom it believes.

    Attributes:
        authorization: The whole `Authorization` header, or empty.
        ca: A file of certificates to believe instead of the public ones, or None.
        client: Files of this site's certificate and key, or None.
    """

    authorization: str = field(default="", repr=False)
    ca: str | None = None
    client: tuple[str, str] | None = None


class BoundedSession(requests.Session):
    """What `DICOMwebClient` sends its queries and stores through; `opened_object` opens the retrieval of one object.

    Proxies, `.netrc` and certificates of the environment are not used: the command line says all.
    """

    def __init__(self, login: Login, stop: threading.Event) -> None:
        super().__init__()
        self.trust_env = False
        self.stop = stop
        self.verify = login.ca if login.ca is not None else True
        self.cert = login.client
        self.headers["Accept-Encoding"] = "identity"
        if login.authorization:
            self.headers["Authorization"] = login.authorization

    def get(self, url: str | bytes, params: Any = None, **options: Any) -> requests.Response:
        """Return a whole answer of DICOM JSON (PS3.18 annex F), for a query.

        Raises:
            ServiceError: If there is none to be had.
        """
        accept = {"Accept": "application/dicom+json"}  # and no `Host`: the client's lacks the port
        del params, options

        def ask() -> requests.Response:
            with self._opened(str(url), accept) as response:
                _check_query(response)
                body = b"".join(_chunks(response, MAX_JSON_BYTES, _JSON_DEADLINE_S))
                return _whole(response, body)

        try:
            return retried(ask, self.stop)
        except TransientError as error:
            raise _no_answer(error) from None
        except FetchError as error:
            raise ServiceError(f"the server's answer to a query is unusable ({error})") from None

    @contextmanager
    def opened_object(self, url: str, accept: str, max_bytes: int) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Give the content type and the body of one object, once; the caller tries again.

        Raises:
            ServiceError: If the server no longer lets this site in.
            FetchError: If the object can't be had.
            TransientError: If another try may help.
        """
        with self._opened(url, {"Accept": accept}) as response:
            _check_object(response)
            body = _chunks(response, max_bytes, _OBJECT_DEADLINE_S)
            yield response.headers.get("Content-Type", ""), body

    def post(self, url: str | bytes, data: Any = None, json: Any = None, **options: Any) -> requests.Response:
        """Send once, and return the whole answer to a store (PS3.18 section 10.5) as one that succeeded, whatever it tells.

        Raises:
            ServiceError: If the server does not take what it is sent, or not from this site.
            FetchError: If it does not take this one object, or its answer is unusable.
            TransientError: If another try may help.
        """
        del json
        kind = dict(options.get("headers") or {}).get("Content-Type", "")
        headers = {"Accept": "application/dicom+json", "Content-Type": kind}  # and no `Host`, as for queries
        with self._opened(str(url), headers, "POST", data) as response:
            _check_store(response)
            whole = _whole(response, b"".join(_chunks(response, MAX_JSON_BYTES, _JSON_DEADLINE_S)))
            whole.status_code = HTTPStatus.OK
            whole.headers["Content-Type"] = _kind(response)
            return whole

    @contextmanager
    def _opened(
        self, url: str, headers: dict[str, str], method: str = "GET", data: Any = None
    ) -> Iterator[requests.Response]:
        with (
            _errors_told(),
            self.request(
                method,
                url,
                data=data,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(_CONNECT_S, _READ_S),
            ) as response,
        ):
            yield response


@contextmanager
def _errors_told() -> Iterator[None]:
    """From what `requests` raises to what Hilum says; the texts of the former hold addresses."""
    try:
        yield
    except SSLError as error:
        raise _tls_error(str(error)) from None
    except DecodeError:
        raise FetchError("damaged") from None
    except (requests.ConnectionError, requests.Timeout, TransportError):
        raise TransientError from None
    except (OSError, ValueError) as error:
        if isinstance(error, requests.RequestException):
            raise ServiceError(f"the request could not be made ({type(error).__name__})") from None
        raise


def _tls_error(text: str) -> Exception:
    """Return what a failed handshake is: OpenSSL's own words, without the names that stand behind them."""
    code = re.search(r"SSL: ([A-Z0-9_]+)", text)
    if code is None:
        # A server that wants another certificate may break off before its alert is read; so does one that is busy.
        return TransientError(tls=True)
    why = code.group(1).lower().replace("_", " ")
    if why in _NO_TLS:
        return ServiceError(
            f"the server speaks no TLS at this port ({why}); check the port, and whether it is an http:// address"
        )
    detail = re.search(r"certificate verify failed: ([A-Za-z -]+)", text)
    if detail is not None:
        why = f"certificate verify failed: {detail.group(1).strip()}"
    return ServiceError(
        f"TLS with the server failed ({why}); check --ca, --client-cert and the host's name in the address"
    )


def retried(ask: Callable[[], Answer], stop: threading.Event) -> Answer:
    """Ask again after a growing wait while that may help.

    Raises:
        TransientError: Of the last try.
    """
    for attempt in range(_ATTEMPTS - 1):
        try:
            return ask()
        except TransientError:
            if stop.wait(_FIRST_WAIT_S * 2**attempt):
                raise
    return ask()


def _no_answer(error: TransientError) -> ServiceError:
    if error.tls:
        return ServiceError(
            "the server broke off while TLS was agreed on; it may ask for another certificate: check --client-cert"
        )
    if error.status is None:
        return ServiceError(
            "the server did not answer, or broke off; check host, port and https:// or http://, and whether it runs; "
            "run again to go on"
        )
    return ServiceError(
        f"the server answered {error.status} {_ATTEMPTS} times; look at its log, and run again"
    )


def _check_query(response: requests.Response) -> None:
    status = response.status_code
    _check_access(status)
    if status == HTTPStatus.FORBIDDEN:
        raise ServiceError(
            "the server forbids the query (403): the token lacks the right to search and retrieve"
        )
    if status == HTTPStatus.NOT_FOUND:
        raise ServiceError(
            "the address is not a DICOMweb service (404); it mostly ends like /dicom-web, /dicomweb or /aets/NAME/rs"
        )
    if status == HTTPStatus.NO_CONTENT:
        return
    if status != HTTPStatus.OK:
        raise ServiceError(f"the server answered {status} to a query; it may not offer QIDO-RS")
    kind = _kind(response)
    if kind not in {"application/dicom+json", "application/json"}:
        told = kind if re.fullmatch(r"[a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,40}", kind) else "something else"
        raise ServiceError(
            f"the server answered {told} instead of DICOM JSON; check that the address is that of its DICOMweb "
            "service, not of a login or web page"
        )


def _check_object(response: requests.Response) -> None:
    status = response.status_code
    _check_access(status)
    if status == HTTPStatus.OK:
        return
    codes = {
        HTTPStatus.FORBIDDEN: "forbidden",
        HTTPStatus.NOT_FOUND: "not_found",
        HTTPStatus.GONE: "not_found",
        HTTPStatus.NOT_ACCEPTABLE: "not_acceptable",
    }
    raise FetchError(codes.get(HTTPStatus(status), "refused") if status in set(HTTPStatus) else "refused")


def _check_store(response: requests.Response) -> None:
    """Let through what tells of each object: all stored, some, or none (PS3.18 table 10.5.3-1)."""
    status = response.status_code
    _check_access(status)
    if status in {HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT}:
        return
    if status == HTTPStatus.FORBIDDEN:
        raise ServiceError("the server forbids the store (403): the token lacks the right to store")
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        raise ServiceError(
            f"the address does not store ({status}); a DICOMweb service mostly ends like /dicom-web, /dicomweb or /aets/NAME/rs, "
            "and may offer no STOW-RS"
        )
    codes = {
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "not_taken_by_server",
        HTTPStatus.BAD_REQUEST: "not_understood",
    }
    raise FetchError(codes.get(HTTPStatus(status), "refused") if status in set(HTTPStatus) else "refused")


def _check_access(status: int) -> None:
    if status in _AGAIN:
        raise TransientError(status)
    if status == HTTPStatus.UNAUTHORIZED:
        raise ServiceError(
            "the server refused the login (401); check the token (--token-file, or HILUM_DICOMWEB_TOKEN), and whether "
            "it has expired; what was done stays, run again to go on"
        )
    if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects
        raise ServiceError(
            f"the server redirects ({status}), which is not followed; give the address it leads to"
        )


def _kind(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "").split(";")[0].strip().lower()


def _chunks(response: requests.Response, max_bytes: int, deadline_s: float) -> Iterator[bytes]:
    began, size_bytes = time.monotonic(), 0
    # `iter_content` waits until a whole chunk is there, which a server that sends a byte a second never lets happen.
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise FetchError("too_large")
        if time.monotonic() - began > deadline_s:
            raise FetchError("too_slow")
        yield chunk


def _whole(response: requests.Response, body: bytes) -> requests.Response:
    whole = requests.Response()
    whole.status_code = response.status_code
    whole.headers = response.headers
    whole.raw = io.BytesIO(body)
    return whole
