"""What a caller is told when it is refused, and what the log says about it: fixed codes, never what the caller sent."""

import logging
import threading
import time

logger = logging.getLogger("hilum.server.gate")

STRANGER = "stranger"
_QUIET_S = 60.0


class Refused(Exception):  # noqa: N818 - the field's word for what happened to the request
    """A request is not served; the gate makes an answer over HTTP of it.

    Args:
        status: HTTP's.
        code: A word from the gate's fixed list; it is the answer's whole body.
    """

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class RefusalLog:
    """One line for each name and code, and then at most one a minute, with how many there were in between."""

    def __init__(self, quiet_s: float = _QUIET_S) -> None:
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str], float] = {}
        self._suppressed: dict[tuple[str, str], int] = {}

    def note(self, name: str | None, code: str) -> None:
        """Log a refusal; `name` is the site's as its certificate says it, or None for a stranger."""
        key = (name or STRANGER, code)
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(key, -self._quiet_s) < self._quiet_s:
                self._suppressed[key] = self._suppressed.get(key, 0) + 1
                return
            self._last[key] = now
            more = self._suppressed.pop(key, 0)
        logger.warning(
            "gate: refused %s: %s%s", *key, f" (and {more} more since the last line)" if more else ""
        )
