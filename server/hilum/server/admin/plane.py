"""The admin's plane: a Unix socket that only the owner of the federation's folder can open, with JSON over HTTP.

It is beside the gate, never behind it: nothing that a site or a stranger sends can reach it.
"""

import asyncio
import base64
import binascii
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from hilum.common import __version__
from hilum.common.errors import ConfigError, FederationError, HilumError, RequestRefused, RunError
from hilum.common.signing import SignedStudy
from hilum.server.admin.queue import RunQueue
from hilum.server.admin.runs import check_run_name, summary
from hilum.server.admin.worker import RunWorker

MAX_BODY_BYTES = 256 * 1024
ROOT = 0
KINDS: Mapping[type[HilumError], str] = {
    ConfigError: "config",
    RunError: "run",
    FederationError: "federation",
    RequestRefused: "refused",
}
_STOP_PATIENCE_S = 15.0
_MAX_SOCKET_PATH = 100  # sun_path of sockaddr_un has 108 bytes, 104 on some systems
_log = logging.getLogger(__name__)


def make_plane(
    queue: RunQueue,
    worker: RunWorker,
    runs: Path,
    seen: Callable[[], Mapping[str, float]],
    reload: Callable[[], None],
) -> Starlette:
    """Return the application behind the socket.

    Args:
        queue: What was submitted.
        worker: Works it off.
        runs: The run directories.
        seen: Gives how long ago each site gave a sign of life, in seconds.
        reload: Takes up a renewed server certificate.
    """

    async def status(_request: Request) -> Any:
        return {"hilum": __version__, "pid": os.getpid(), "seen": dict(seen())}

    async def submit(request: Request) -> Any:
        signed, resume = _submission(await _body(request))
        order = await run_in_threadpool(worker.submit, signed, resume=resume)
        return {"run": order.run, "sites": list(order.sites), "state": "queued"}

    async def list_runs(_request: Request) -> Any:
        found = await run_in_threadpool(queue.runs)
        return [asdict(summary(one, runs)) for one in found]

    async def show(request: Request) -> Any:
        run = check_run_name(request.path_params["run"])
        return asdict(summary(await run_in_threadpool(queue.run, run), runs))

    async def stop(request: Request) -> Any:
        run = check_run_name(request.path_params["run"])
        await run_in_threadpool(worker.stop, run)
        idle = await run_in_threadpool(worker.wait_idle, run, _STOP_PATIENCE_S)
        return {"run": run, "state": "stopped", "idle": idle}

    async def take_up_certificate(_request: Request) -> Any:
        await run_in_threadpool(reload)
        return {}

    return Starlette(
        routes=[
            _route("/status", status, "GET"),
            _route("/runs", list_runs, "GET"),
            _route("/runs", submit, "POST"),
            _route("/runs/{run}", show, "GET"),
            _route("/runs/{run}/stop", stop, "POST"),
            _route("/certificate", take_up_certificate, "POST"),
        ]
    )


def _route(path: str, answer: Callable[[Request], Awaitable[Any]], method: str) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await answer(request))
        except HilumError as error:
            kind = next((word for cls, word in KINDS.items() if isinstance(error, cls)), "federation")
            return JSONResponse({"kind": kind, "message": str(error)}, status_code=409)
        except Exception:
            _log.exception("a call on the admin socket met an internal error")
            message = "the server met an internal error; its log says where"
            return JSONResponse({"kind": "federation", "message": message}, status_code=500)

    return Route(path, endpoint, methods=[method])


async def _body(request: Request) -> bytes:
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise RunError(f"a call has at most {MAX_BODY_BYTES // 1024} KiB")
    return content


def _submission(body: bytes) -> tuple[SignedStudy, bool]:
    """Return a signed study and whether to resume, out of a call's body.

    Raises:
        RunError: If the call is not well formed.
    """
    try:
        table = json.loads(body)
        resume = table["resume"]
        signed = signed_from_table(table)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RunError("the call is not well formed; are both ends the same version of Hilum?") from None
    if not isinstance(resume, bool):
        raise RunError("the call is not well formed; `resume` is true or false")
    return signed, resume


def signed_to_table(signed: SignedStudy) -> dict[str, str]:
    """Return a signed study as JSON has it."""
    return {
        "document": base64.b64encode(signed.document).decode(),
        "signature": base64.b64encode(signed.signature).decode(),
    }


def signed_from_table(table: Any) -> SignedStudy:
    """Return the inverse of `signed_to_table`; what it says is not looked at.

    Raises:
        ValueError: If it is not one, as KeyError and TypeError.
    """
    try:
        return SignedStudy(
            base64.b64decode(table["document"], validate=True),
            base64.b64decode(table["signature"], validate=True),
        )
    except binascii.Error as error:
        raise ValueError(str(error)) from None


class _OwnerOnly(H11Protocol):
    """Closes a connection of any user but the server's own and root, whatever the file's mode says."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who is at the other end (unix(7), SO_PEERCRED)."""
        super().connection_made(transport)
        peer: socket.socket = transport.get_extra_info("socket")
        _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (os.geteuid(), ROOT):
            _log.warning("the admin socket: refused user %d", uid)
            transport.abort()


def plane_server(app: Starlette) -> uvicorn.Server:
    """Return a server for `listen`'s socket."""
    config = uvicorn.Config(
        app,
        http=_OwnerOnly if hasattr(socket, "SO_PEERCRED") else "h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def listen(path: Path) -> socket.socket:
    """Return a listening socket with mode 0600 in place of one that an earlier server left."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        with reachable(path) as short:
            made.bind(short)
    finally:
        os.umask(before)
    made.listen(16)
    return made


class reachable:  # noqa: N801 - used as a function
    """A name of a socket that fits into the kernel's 108 bytes, inside the block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder: int | None = None

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= _MAX_SOCKET_PATH or not Path("/proc/self/fd").exists():
            return str(self._path)
        self._folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *_error: object) -> None:
        if self._folder is not None:
            os.close(self._folder)
