"""Connections that showed a certificate: uvicorn's HTTP protocol that knows it, and how many there may be."""

import asyncio
import logging
from collections import defaultdict

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from hilum.server.gate.app import Gate, Peer
from hilum.server.gate.listener import Listener

# uvicorn warns of each request that is not HTTP; a refusal says so instead, once a minute. Errors are ours to mend.
_http_logger = logging.getLogger("hilum.server.gate.http")
_http_logger.setLevel(logging.ERROR)


class SiteProtocol(H11Protocol):
    """One connection: it knows the certificate, and gives up on headers that do not come."""

    def __init__(
        self,
        gate: Gate,
        listener: Listener,
        open_connections: "OpenConnections",
        config: Config,
        server_state: ServerState,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, {}, loop)
        self.logger = _http_logger
        self._gate = gate
        self._listener = listener
        self._open_connections = open_connections
        self._header_timer: asyncio.TimerHandle | None = None
        self.certificate_der = b""
        self.active_at = loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the certificate that TLS has checked, before anything is read."""
        super().connection_made(transport)
        self.certificate_der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.app_state = {"peer": Peer(self.certificate_der, transport)}
        self._listener.welcome(transport.get_extra_info("peername"))
        self._open_connections.add(self)
        self._time_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._open_connections.discard(self)
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on what came, and watch how long the headers of the next request take."""
        if self.transport.is_closing():
            return
        self.active_at = self.loop.time()
        super().data_received(data)
        if self.busy:
            self._stop_timer()
        elif self._header_timer is None:
            self._time_headers()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self.refuse("bad_http")
        super().send_400_response(msg)

    def _should_upgrade(self) -> bool:
        return False

    @property
    def busy(self) -> bool:
        """A request is being served."""
        return self.cycle is not None and not self.cycle.response_complete

    def refuse(self, code: str) -> None:
        """Log that this connection is given up."""
        self._gate.refusals.note(self._gate.admission.name_of(self.certificate_der), code)

    def _time_headers(self) -> None:
        self._header_timer = self.loop.call_later(self._gate.bounds.header_timeout_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self.refuse("slow_headers")
        self.transport.abort()


class OpenConnections:
    """The connections that showed a certificate, by certificate.

    A site whose line was cut leaves dead ones behind; so one too many closes the one that was quiet longest.
    """

    def __init__(self, most_each: int) -> None:
        self._most_each = most_each
        self._open: defaultdict[bytes, set[SiteProtocol]] = defaultdict(set)

    def add(self, protocol: SiteProtocol) -> None:
        """Count a connection in."""
        with_same = self._open[protocol.certificate_der]
        with_same.add(protocol)
        if len(with_same) > self._most_each:
            oldest = min(with_same - {protocol}, key=lambda one: (one.busy, one.active_at))
            if not oldest.transport.is_closing():
                oldest.refuse("too_many_connections")
            with_same.discard(oldest)
            oldest.transport.abort()

    def discard(self, protocol: SiteProtocol) -> None:
        """Count a connection out."""
        with_same = self._open.get(protocol.certificate_der, set())
        with_same.discard(protocol)
        if not with_same:
            self._open.pop(protocol.certificate_der, None)
