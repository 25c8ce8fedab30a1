"""Below HTTP: every wait has an end, whoever is at the other one, and it is known how far a call came.

httpcore bounds one read; a server that sends a byte now and then would hold a call for ever. Here the whole call has a
deadline, and each step of it says that the caller still moves.
"""

import enum
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore

NOT_HTTP = "not HTTP"
_FIRST_BYTES = b"HTTP/1."


class Stage(enum.Enum):
    """How far a call came before it failed."""

    CONNECT = "connect"
    PROXY = "proxy"
    TLS = "tls"
    ANSWER = "answer"


class Progress(threading.local):
    """What the call of the current thread is at. httpcore works in the thread that calls it."""

    def __init__(self) -> None:
        self.stage = Stage.ANSWER  # a connection that is open already starts there
        self.until_s = float("inf")
        self.moved: Callable[[], None] = _nothing

    @contextmanager
    def call(self, deadline_s: float, moved: Callable[[], None] | None) -> Iterator[None]:
        """Bound what is done inside by a deadline from now, and say with `moved` that it goes on."""
        self.stage, self.until_s = Stage.ANSWER, time.monotonic() + deadline_s
        self.moved = moved or _nothing
        try:
            yield
        finally:
            self.until_s, self.moved = float("inf"), _nothing

    def left(self, timeout_s: float | None, late: type[Exception]) -> float:
        """Seconds that the next step may take.

        Raises:
            Exception: Of the given type, if none are left.
        """
        self.moved()
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise late("the call took too long as a whole")
        return left_s if timeout_s is None else min(timeout_s, left_s)


class Backend(httpcore.NetworkBackend):
    """httpcore's own network, under the deadline of the call."""

    def __init__(self, progress: Progress, *, through_proxy: bool) -> None:
        self._inner = httpcore.SyncBackend()
        self._progress = progress
        self._connected = Stage.PROXY if through_proxy else Stage.TLS

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect, to the server or its proxy."""
        self._progress.stage = Stage.CONNECT
        timeout = self._progress.left(timeout, httpcore.ConnectTimeout)
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        self._progress.stage = self._connected
        return Stream(stream, self._progress)


class Stream(httpcore.NetworkStream):
    """A connection, under the deadline of the call."""

    def __init__(self, inner: httpcore.NetworkStream, progress: Progress, *, expected: bytes = b"") -> None:
        self._inner, self._progress, self._expected = inner, progress, expected

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has arrived; its first bytes tell another protocol, which might wait for us for ever."""
        read = self._inner.read(max_bytes, self._progress.left(timeout, httpcore.ReadTimeout))
        begins, self._expected = self._expected[: len(read)], self._expected[len(read) :]
        if not read.startswith(begins):
            raise httpcore.RemoteProtocolError(NOT_HTTP)
        return read

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it."""
        self._inner.write(buffer, self._progress.left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Shake hands."""
        self._progress.stage = Stage.TLS
        timeout = self._progress.left(timeout, httpcore.ConnectTimeout)
        secured = self._inner.start_tls(ssl_context, server_hostname, timeout)
        self._progress.stage = Stage.ANSWER
        return Stream(secured, self._progress, expected=_FIRST_BYTES)

    def get_extra_info(self, info: str) -> Any:
        """Pass on what httpcore asks about the socket."""
        return self._inner.get_extra_info(info)


def _nothing() -> None:
    """Do nothing."""
