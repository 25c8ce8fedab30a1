"""The admin's commands talk to the server through its socket, and through no proxy that the environment names."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from hilum.common.errors import ConfigError, FederationError, HilumError, RunError
from hilum.common.locks import is_held
from hilum.common.signing import SignedStudy
from hilum.server.admin.authority import SUPERVISOR_LOCK
from hilum.server.admin.plane import reachable, signed_to_table
from hilum.server.admin.queue import FINISHED, OVER

_TIMEOUT_S = 30.0
_RESTART_PATIENCE_S = 180.0
_START_PATIENCE_S = 30.0


class NoServerError(FederationError):
    """No server of this federation runs here."""


class NoAnswerError(FederationError):
    """The server ended, or hung, during a call."""


class AdminClient:
    """Calls to the server of one state folder.

    Args:
        socket: Its `admin.sock`.
        patience_s: How long to wait for a server that nobody seems to have started yet. One that is on its way up is
            waited for in any case.
    """

    def __init__(self, socket: Path, patience_s: float = 0.0) -> None:
        self._socket, self._patience_s = socket, patience_s

    def seen(self) -> dict[str, float]:
        """Return how long ago each site gave a sign of life, in seconds."""
        return dict(self._call("GET", "/status")["seen"])

    def submit(self, signed: SignedStudy, *, resume: bool) -> dict[str, Any]:
        """Put a signed study into the queue."""
        return dict(self._call("POST", "/runs", {**signed_to_table(signed), "resume": resume}))

    def runs(self) -> list[dict[str, Any]]:
        """Return every run, as `RunSummary` has it."""
        return list(self._call("GET", "/runs"))

    def stop(self, run: str) -> dict[str, Any]:
        """Stop a run."""
        return dict(self._call("POST", f"/runs/{run}/stop"))

    def take_up_certificate(self) -> None:
        """Let the server use a renewed certificate."""
        self._call("POST", "/certificate")

    def wait(self, run: str, poll_s: float = 0.5) -> None:
        """Wait until a run has finished; a server that is started again meanwhile is waited for too.

        Raises:
            FederationError: If the run fails, is stopped, or no server comes back.
        """
        lost_at: float | None = None
        while True:
            try:
                found = dict(self._call("GET", f"/runs/{run}"))
            except (NoServerError, NoAnswerError):
                now = time.monotonic()
                lost_at = lost_at or now
                if now - lost_at > _RESTART_PATIENCE_S:
                    raise
            else:
                lost_at = None
                if found["state"] in OVER:
                    break
            time.sleep(poll_s)
        if found["state"] != FINISHED:
            why = f": {found['reason']}" if found["reason"] else ""
            raise FederationError(f"run {run} {_ended(found['state'])}{why}")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        began = time.monotonic()
        while True:
            try:
                with self._http() as http:
                    answer = http.request(method, path, json=body)
                    content = answer.json()
                break
            except NoServerError:
                starting = is_held(self._socket.with_name(SUPERVISOR_LOCK))
                if time.monotonic() - began > (_START_PATIENCE_S if starting else self._patience_s):
                    raise
                time.sleep(0.2)
        if answer.is_success:
            return content
        raise _error(str(content.get("kind")), str(content.get("message")))

    @contextmanager
    def _http(self) -> Iterator[httpx.Client]:
        try:
            with (
                reachable(self._socket) as path,
                httpx.Client(
                    transport=httpx.HTTPTransport(uds=path),
                    base_url="http://server",
                    timeout=_TIMEOUT_S,
                    trust_env=False,
                ) as http,
            ):
                yield http
        except httpx.ConnectError:
            raise NoServerError(
                "no server runs on this state folder; start it with `hilum admin serve`, or name its folder with --home"
            ) from None
        except (httpx.HTTPError, ValueError) as error:
            raise NoAnswerError(
                f"the server did not answer as expected ({type(error).__name__}); see its log"
            ) from None


def _ended(state: str) -> str:
    return "was stopped" if state == "stopped" else state


def _error(kind: str, message: str) -> HilumError:
    if kind == "config":
        source, _, problem = message.partition(": ")
        return ConfigError(source, [problem])
    if kind == "run":
        return RunError(message)
    if kind == "refused":
        return ConfigError("signed study", [message])
    return FederationError(message)
