"""The server that a gate runs in: uvicorn on a port where only certificates of the federation get past TLS."""

import asyncio
import logging
import socket
import ssl
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from hilum.common.errors import FederationError
from hilum.server.gate.app import Gate
from hilum.server.gate.bounds import KIB
from hilum.server.gate.connections import OpenConnections, SiteProtocol
from hilum.server.gate.listener import Listener

_HEADERS_BYTES = 16 * KIB
_STOP_PATIENCE_S = 5
_TLS_CLOSE_S = 2.0


def tls_context(*, certificate: Path, key: Path, roots: Path) -> ssl.SSLContext:
    """Return mutual TLS that trusts the federation's root alone.

    TLS 1.3, in which a site whose certificate is refused can tell that from another program's port. Tickets are off: each
    connection shows its certificate again, so that one that ended since is refused.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(roots)
    return context


class GateServer(uvicorn.Server):
    """uvicorn's server, whose port and connections are the gate's.

    Attributes:
        tls: Load a renewed certificate into it; connections made afterwards use that.
    """

    def __init__(self, gate: Gate, listener: Listener, tls: ssl.SSLContext) -> None:
        self.gate = gate
        self.tls = tls
        self._listener = listener
        super().__init__(
            uvicorn.Config(
                gate,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                interface="asgi3",
                workers=1,
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=gate.bounds.idle_timeout_s,
                timeout_graceful_shutdown=_STOP_PATIENCE_S,
                h11_max_incomplete_event_size=_HEADERS_BYTES,
            )
        )
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._listener.port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Listen; uvicorn's own way can't bound the TLS handshake, and knows no certificate of a peer."""
        loop = asyncio.get_running_loop()
        open_connections = OpenConnections(self.gate.bounds.connections_per_site)

        def protocol() -> SiteProtocol:
            return SiteProtocol(
                self.gate, self._listener, open_connections, self.config, self.server_state, loop
            )

        server = await loop.create_server(
            protocol,
            sock=self._listener,
            ssl=self.tls,
            ssl_handshake_timeout=self.gate.bounds.handshake_timeout_s,
            ssl_shutdown_timeout=_TLS_CLOSE_S,
        )
        self.servers = [server]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, the calls that are being held first."""
        self.gate.stop()
        await super().shutdown(sockets)


def make_server(gate: Gate, *, host: str, port: int, certificate: Path, key: Path, roots: Path) -> GateServer:
    """Return a server that is bound to its port and will listen when it is run.

    Args:
        gate: What to serve.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        certificate: The server's, with what is between it and the root.
        key: The certificate's.
        roots: The federation's root, which signs the sites' certificates.

    Raises:
        FederationError: If the address can't be had or the certificate does not fit its key.
    """
    try:
        tls = tls_context(certificate=certificate, key=key, roots=roots)
    except (OSError, ssl.SSLError) as error:
        raise FederationError(
            f"the server's certificate, key or root can't be used ({error}); `hilum admin renew` makes a new certificate"
        ) from None
    listener = Listener(host, port, most=gate.bounds.connections, refusals=gate.refusals)
    return GateServer(gate, listener, tls)


class GateThread:
    """Runs a server in a thread of its own, from `with` to its end."""

    def __init__(self, server: GateServer) -> None:
        self.server = server
        self._thread = threading.Thread(target=server.run, name="gate", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self.server.started:
            if not self._thread.is_alive():
                raise FederationError("the gate ended while it started; see its lines above")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.should_exit = True
        self._thread.join()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self.server.port

    @property
    def alive(self) -> bool:
        """The server is running."""
        return self._thread.is_alive()
