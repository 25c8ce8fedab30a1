"""The port: it accepts so many connections at a time, those that have not shown a certificate yet included.

Without this bound a stranger that only opens connections takes every file descriptor, and a run can't write its state.
Of those that have shown no certificate yet, one address has a part only: else that stranger keeps every site out.
"""

import socket
from typing import Any

from hilum.common.errors import FederationError
from hilum.server.gate.refused import RefusalLog

Address = Any  # a tuple of 2 or 4, as the family has it
_PART, _MIN_PART = 8, 4  # of all connections, for one address's strangers


class Listener(socket.socket):
    """A bound socket that counts.

    Args:
        host: The address to listen on.
        port: The port; 0 takes a free one.
        most: How many connections may be open.
        refusals: Where to tell of those that are too many or end without a valid certificate.

    Raises:
        FederationError: If the address can't be had.
    """

    def __init__(self, host: str, port: int, *, most: int, refusals: RefusalLog) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            super().__init__(family, kind, protocol)
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(address)
        except OSError as error:
            raise FederationError(
                f"can't listen on {host}, port {port} ({error.strerror}): is another server running there?"
            ) from None
        self._most = most
        self._refusals = refusals
        self._open: dict[Address, bool] = {}  # true once the certificate was checked

    @property
    def port(self) -> int:
        """The port."""
        return int(self.getsockname()[1])

    def accept(self) -> tuple[socket.socket, Address]:
        """Accept a connection; one too many is closed at once.

        Raises:
            ConnectionAbortedError: If it was one too many; the event loop goes on.
        """
        connection, address = super().accept()
        if len(self._open) >= self._most or self._strangers(address[0]) >= max(
            _MIN_PART, self._most // _PART
        ):
            connection.close()
            self._refusals.note(None, "too_many_connections")
            raise ConnectionAbortedError
        self._open[address] = False
        return _Accepted(self, address, connection.detach()), address

    def _strangers(self, host: str) -> int:
        return sum(known[0] == host for known, welcome in self._open.items() if not welcome)

    def welcome(self, address: Address) -> None:
        """Note that a connection showed a certificate of the federation."""
        self._open[address] = True

    def left(self, address: Address) -> None:
        """Note that a connection ended."""
        if not self._open.pop(address, True):
            self._refusals.note(None, "no_certificate")


class _Accepted(socket.socket):
    """A connection that tells the listener when it ends."""

    def __init__(self, listener: Listener, address: Address, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._listener = listener
        self._address = address

    def close(self) -> None:
        super().close()
        self._listener.left(self._address)
