"""`hilum admin serve`: see that the server can be started, and keep it running."""

import errno
import logging
import os
import socket
import sys
from pathlib import Path

from hilum.common.errors import ConfigError, FederationError
from hilum.common.lockdown import OUTBOUND_OFF
from hilum.common.locks import only_one
from hilum.common.security.certificates import days_left
from hilum.common.signing import public_key_of
from hilum.common.supervise import Stamp, supervise
from hilum.server.admin.authority import ONE_SERVER, SUPERVISOR_LOCK, FederationFolder

ALL_ADDRESSES = {"0.0.0.0", "::", ""}  # noqa: S104 - compared, and bound only where the admin says so
STAMP = "server.stamp"
_WARN_DAYS = 30
_BACKLOG = 512
_log = logging.getLogger(__name__)


def serve(home: Path, host: str | None, port: int | None) -> None:
    """Keep a server running until this process is asked to end.

    Args:
        home: Hilum's state folder.
        host: The address to listen on; None: all, or loopback alone where sites are told a loopback address.
        port: The port to listen on; None: the one that sites are told.

    Raises:
        ConfigError: If there is no federation, or a key, certificate, host or port can't be used.
        RunError: If a server runs on this state folder.
        FederationError: If the server ends for good.
    """
    folder = FederationFolder(home)
    address = folder.address()
    host, port = host or default_host(address.hosts[0]), port or address.port
    own = [] if host in ALL_ADDRESSES else [host]
    certificate = folder.check_server([*address.hosts, *own])
    public_key_of(folder.study_key_text())
    with only_one(folder.file(SUPERVISOR_LOCK), ONE_SERVER):
        listening_socket(host, port).close()
        _tell_where(folder, host, port, days_left(certificate))
        command = [sys.executable, "-P", "-m", "hilum.server.process", "--home", str(home)]
        code = supervise(
            [*command, "--host", host, "--port", str(port)],
            Stamp(folder.file(STAMP)),
            name="the server",
            environment={**os.environ, **OUTBOUND_OFF, "HILUM_HOME": str(home)},
        )
    if code:
        raise FederationError(f"the server ended with code {code}; its last lines say why")


def listening_socket(host: str, port: int) -> socket.socket:
    """Listen on an address of this machine.

    Raises:
        ConfigError: If that can't be: the host is not this machine's, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise ConfigError(
            "--host", [f"{host!r} is not known; give an address or name of this machine"]
        ) from None
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise _cannot_listen(host, port, error) from None
    return made


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            "--port", [f"{port} is in use by another program; stop that one, or choose another port"]
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(
            "--host", [f"{host} is not an address of this machine; 0.0.0.0 stands for all of its own"]
        )
    if error.errno == errno.EACCES:
        return ConfigError("--port", [f"this user may not listen on {port}; choose one above 1023"])
    return ConfigError("--host", [f"can't listen on {host}:{port} ({error.strerror})"])


def default_host(told: str) -> str:
    """Return the address to listen on for sites that are told a name or an address."""
    if ":" in told:
        return "::1" if told == "::1" else "::"
    loopback = told == "localhost" or told.startswith("127.")
    return "127.0.0.1" if loopback else "0.0.0.0"  # noqa: S104 - the gate is made for strangers


def _tell_where(folder: FederationFolder, host: str, port: int, days: int) -> None:
    told, _, told_port = folder.address().server.rpartition(":")
    _log.info("sites reach this server as %s:%s; listening on %s:%d", told, told_port, host, port)
    if int(told_port) != port:
        _log.warning("sites are told port %s; something must forward it to %d", told_port, port)
    if days <= _WARN_DAYS:
        _log.warning("the server's certificate ends in %d days; renew it with `hilum admin renew`", days)
