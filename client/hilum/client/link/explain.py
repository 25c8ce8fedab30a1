"""One line for whatever goes wrong with the link: the cause, and what to do about it.

The lines are for the site engineer and stay on the site's machine. Nothing that a peer sent is quoted in them, but for
numbers.
"""

import datetime as dt
import enum
import errno
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import httpcore
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from hilum.client.link.fleet_client import Answered, CallFailed, NotAServer, TooLarge
from hilum.client.link.identity import Identity
from hilum.client.link.proxies import Proxy
from hilum.client.link.transport import NOT_HTTP, Stage

CLOCK_OFF_S = 300.0
_PROBE_S = 5.0
# openssl/x509_vfy.h
_NOT_YET_VALID, _EXPIRED, _WRONG_PURPOSE = 9, 10, 26
_OTHER_NAME = {62, 64}
_NO_TLS = {
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "BAD_PACKET_LENGTH",
    "BAD_RECORD_TYPE",
}
_OLD_TLS = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"}
# Alerts about our certificate, RFC 8446, 6.2.
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "it is not of the server's federation",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that it has expired; if not, the server's clock is wrong",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it says that it is revoked",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it says that it is not valid",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not know it",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it is not a site's",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "none arrived; something between site and server may take it away",
    "TLSV1_ALERT_ACCESS_DENIED": "it lets this site not in",
    "TLSV1_ALERT_DECRYPT_ERROR": "its signature does not hold",
}
_CLOSED = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError, BrokenPipeError)
_UNAUTHORIZED, _PROXY_LOGIN = 401, 407
_BUSY = {408, 429, 502, 503, 504}
_GATEWAY = {502, 503, 504}
_Error = TypeVar("_Error", bound=BaseException)


class Patience(enum.Enum):
    """What to do after a failure."""

    SOON = "soon"
    SLOWLY = "slowly"  # an admin has to act: nothing changes within seconds
    NEVER = "never"  # someone has to mend something here


@dataclass(frozen=True)
class Cause:
    """Why the link does not work.

    Attributes:
        code: Names it, for tests and other programs.
        text: One line: what is wrong and what to do.
        patience: Whether trying again can help.
    """

    code: str
    text: str
    patience: Patience = Patience.SOON


def explain(
    error: Exception,
    identity: Identity,
    proxy: Proxy | None,
    *,
    known: bool = False,
    answered: bool = False,
) -> Cause:
    """Explain why a call failed.

    Args:
        error: What `FleetClient` raised.
        identity: The site's papers.
        proxy: Between the two, if there is one.
        known: The server has answered this site before. Then a wrong root is not for good: whoever answers on its
            address for a minute must not end the link.
        answered: The server has answered over these very connections. Then one that ends is a cut, and no judgement.
    """
    if dt.datetime.now(dt.UTC) > identity.ends:
        text = (
            f"this site's certificate expired on {_day(identity.ends)} UTC; send site.csr to the federation's admin "
            f"again, and take what comes back with `hilum site join` (this machine's clock says {_now()} UTC)"
        )
        return Cause("own_expired", text, Patience.NEVER)
    if isinstance(error, CallFailed):
        if error.stage is Stage.ANSWER:
            return _no_answer(error, identity, answered=answered)
        return _no_connection(error, identity, proxy, known=known)
    return _answered_wrongly(error, identity)


def clock_line(ahead_s: float | None) -> str | None:
    """Return a line about this machine's clock if it is far from the server's, or None."""
    if ahead_s is None or abs(ahead_s) < CLOCK_OFF_S:
        return None
    way = "ahead of" if ahead_s > 0 else "behind"
    return (
        f"this machine's clock is {abs(ahead_s) / 60:.0f} minutes {way} the server's; set it (certificates and signed "
        "studies depend on it)"
    )


def _no_connection(error: CallFailed, identity: Identity, proxy: Proxy | None, *, known: bool) -> Cause:
    if proxy is not None and error.stage in {Stage.CONNECT, Stage.PROXY}:
        return _proxy_failed(error, identity, proxy)
    if error.stage is Stage.CONNECT:
        code, why = _connecting(error, identity.host)
        return Cause(code, f"cannot reach {identity.where} ({why})")
    return _handshake_failed(error, identity, proxy, known=known)


def _answered_wrongly(error: Exception, identity: Identity) -> Cause:
    where = identity.where
    if isinstance(error, NotAServer):
        text = f"{where} is not a Hilum server: {error}; check `link.server`, host and port"
        return Cause("not_hilum", text, Patience.SLOWLY)
    if isinstance(error, TooLarge):
        text = f"{where} sent an answer without end; it was not read. Is it the federation's server?"
        return Cause("too_large", text, Patience.SLOWLY)
    if isinstance(error, Answered):
        return _answered(error.status, identity)
    return Cause("failed", f"the link to {where} failed ({type(error).__name__})")


def _answered(status: int, identity: Identity) -> Cause:
    where = identity.where
    if status == _UNAUTHORIZED:
        text = (
            f"{where} does not admit this site's certificate (401): {identity.name} is not approved yet, is revoked, or "
            "has a newer certificate; ask the federation's admin"
        )
        return Cause("not_admitted", text, Patience.SLOWLY)
    if status in _BUSY:
        return Cause("busy", f"{where} is busy, or the link is too slow for it ({status})")
    text = f"{where} refused a call ({status}); the admin finds the reason in the server's log"
    return Cause("refused", text, Patience.SLOWLY)


def _proxy_failed(error: CallFailed, identity: Identity, proxy: Proxy) -> Cause:
    named = f"the proxy {proxy.where} of HTTPS_PROXY"
    if error.stage is Stage.CONNECT:
        _, why = _connecting(error, proxy.host)
        return Cause("proxy_down", f"cannot reach {named} ({why})")
    refused = next((one for one in _chain(error) if isinstance(one, httpcore.ProxyError)), None)
    if refused is None:
        return Cause("proxy_wrong", f"{named} does not answer as an HTTP proxy; check its port")
    status = int(digits) if (digits := str(refused)[:3]).isdigit() else 0
    if status == _PROXY_LOGIN:
        text = f"{named} wants a name and a password (407): HTTPS_PROXY=http://NAME:PASSWORD@{proxy.where}"
        return Cause("proxy_login", text, Patience.SLOWLY)
    if status in _GATEWAY:
        return Cause("proxy_gateway", f"{named} can't reach {identity.where} ({status})")
    text = f"{named} refuses the way to {identity.where} ({status}): have it allow CONNECT there, or set NO_PROXY"
    return Cause("proxy_refused", text, Patience.SLOWLY)


def _connecting(error: CallFailed, host: str) -> tuple[str, str]:
    """Why no connection came about: a code and words."""
    cause = _first(error, OSError)
    if isinstance(cause, socket.gaierror):
        if cause.errno == socket.EAI_AGAIN:
            return "dns", "DNS does not answer now; is this machine's network up?"
        return "dns", f"the name {host} is not known; check `link.server` and this machine's DNS"
    if isinstance(cause, TimeoutError) or cause is None:
        return "timeout", "no answer; the machine is off, or a firewall drops the connection"
    if isinstance(cause, ConnectionRefusedError):
        return "down", "connection refused; the server is not running, or listens on another port"
    if cause.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}:
        return "no_route", "no way there; check this machine's network"
    return "network", os.strerror(cause.errno) if cause.errno else type(cause).__name__


def _handshake_failed(error: CallFailed, identity: Identity, proxy: Proxy | None, *, known: bool) -> Cause:
    where = identity.where
    cause = _first(error, OSError)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _not_believed(cause, identity, proxy, known=known)
    if isinstance(cause, _CLOSED):
        text = f"{where} closed the connection as TLS began; is it the right port, and does a firewall allow TLS?"
        return Cause("tls_closed", text)
    if isinstance(cause, ssl.SSLError):
        return _no_handshake(cause.reason, identity)
    text = f"{where} accepts connections but says nothing; it hangs, or the port is another program's"
    return Cause("tls_silent", text)


def _no_handshake(reason: str | None, identity: Identity) -> Cause:
    where = identity.where
    if reason in _NO_TLS:
        text = f"{where} answers, but without TLS; check the port in `link.server`"
        return Cause("no_tls", text, Patience.SLOWLY)
    if reason in _OLD_TLS:
        return Cause("old_tls", f"{where} does not offer TLS 1.2 or newer", Patience.SLOWLY)
    if reason in _ALERTS:
        return _not_accepted(reason, identity)
    return Cause("tls", f"TLS with {where} failed ({_words(reason)})", Patience.SLOWLY)


def _not_believed(
    cause: ssl.SSLCertVerificationError, identity: Identity, proxy: Proxy | None, *, known: bool
) -> Cause:
    """Why the server's certificate does not pass."""
    where, code = identity.where, cause.verify_code
    if code in _OTHER_NAME:
        text = (
            f"the certificate of {where} is not for {identity.host}; write the host in `link.server` as the admin gave "
            "it, or have the admin run `hilum admin renew --host`"
        )
        return Cause("other_host", text, Patience.SLOWLY)
    if code in {_EXPIRED, _NOT_YET_VALID}:
        return _out_of_date(identity, proxy, expired=code == _EXPIRED)
    if code == _WRONG_PURPOSE:
        return Cause("no_server", f"{where} shows a certificate that is not a server's", Patience.SLOWLY)
    through = "; a proxy that opens TLS on the way looks like this too" if proxy is not None else ""
    text = (
        f"{where} shows a certificate that is not of this federation{through}; check `link.server`, and ask the admin "
        "whether the federation has a new root.crt"
    )
    return Cause("other_federation", text, Patience.SLOWLY if known else Patience.NEVER)


def _out_of_date(identity: Identity, proxy: Proxy | None, *, expired: bool) -> Cause:
    where = identity.where
    shown = None if proxy is not None else _certificate_shown(identity)
    since = ""
    if shown is not None:
        edge = shown.not_valid_after_utc if expired else shown.not_valid_before_utc
        apart_s = abs((dt.datetime.now(dt.UTC) - edge).total_seconds())
        word = "ended" if expired else "begins"
        since = f" ({word} {_day(edge)} UTC; this machine's clock says {_now()} UTC, {_span(apart_s)} apart)"
    if expired:
        text = (
            f"the certificate of {where} has expired{since}: set the clock here if it is wrong, or have the admin run "
            "`hilum admin renew`"
        )
        return Cause("server_expired", text, Patience.SLOWLY)
    text = f"the certificate of {where} is not valid yet{since}: set the clock here or at the server"
    return Cause("server_not_yet", text, Patience.SLOWLY)


def _no_answer(error: CallFailed, identity: Identity, *, answered: bool) -> Cause:
    """Why a call over an open connection had no answer. With TLS 1.3 a server judges our certificate only here."""
    where = identity.where
    cause = _first(error, ssl.SSLError)
    if cause is not None and cause.reason in _ALERTS:
        return _not_accepted(cause.reason, identity)
    if _first(error, httpcore.TimeoutException) is not None:
        return Cause("silent", f"{where} does not answer")
    if any(isinstance(one, httpcore.RemoteProtocolError) and str(one) == NOT_HTTP for one in _chain(error)):
        text = f"{where} is not a Hilum server: it does not speak HTTP; check `link.server`, host and port"
        return Cause("not_hilum", text, Patience.SLOWLY)
    if answered:
        return Cause("cut", f"the connection to {where} was cut")
    text = (
        f"{where} closed the connection without an answer: most often it does not admit this site's certificate, or "
        f"takes it for out of date; ask the federation's admin whether {identity.name} is approved"
    )
    return Cause("closed", text, Patience.SLOWLY)


def _not_accepted(reason: str, identity: Identity) -> Cause:
    text = (
        f"{identity.where} does not accept this site's certificate: {_ALERTS[reason]}; ask the federation's admin "
        f"whether {identity.name} is approved"
    )
    return Cause("not_accepted", text, Patience.SLOWLY)


def _certificate_shown(identity: Identity) -> x509.Certificate | None:
    """Return the certificate that the server shows, if it is of this federation: only its dates are of interest.

    Nothing but a greeting is sent, and nothing is believed but what the root has signed.
    """
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((identity.host, identity.port), _PROBE_S) as plain,
            blind.wrap_socket(plain, server_hostname=identity.host) as secured,
        ):
            shown = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
        shown.verify_directly_issued_by(identity.root)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return None
    return shown


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return the error and what it came from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _first(error: BaseException, kind: type[_Error]) -> _Error | None:
    return next((one for one in _chain(error) if isinstance(one, kind)), None)


def _words(reason: str | None) -> str:
    return (reason or "unknown").replace("_", " ").lower()


def _day(when: dt.datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"


def _now() -> str:
    return _day(dt.datetime.now(dt.UTC))


def _span(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 2 * 86_400 else f"{seconds / 86_400:.0f} days"
