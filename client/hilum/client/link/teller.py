"""Tells people how the link is, and nothing twice within a minute."""

import logging
import time
from collections.abc import Callable

AGAIN_AFTER_S = 60.0


class Teller:
    """Logs lines; one that is said again and again is said once a minute, with how often it would have been.

    Args:
        log: Where to.
        now_s: A clock.
    """

    def __init__(self, log: logging.Logger, now_s: Callable[[], float] = time.monotonic) -> None:
        self._log, self._now_s = log, now_s
        self._last, self._said_s, self._more = "", float("-inf"), 0

    def tell(self, line: str) -> None:
        """Say good news; trouble that comes after it is said at once."""
        self._last, self._more = "", 0
        self._log.info("%s", line)

    def trouble(self, line: str, next_step: str) -> None:
        """Say bad news.

        Args:
            line: What makes it the same or another trouble.
            next_step: What is done about it; it may differ each time.
        """
        now_s = self._now_s()
        if line == self._last and now_s - self._said_s < AGAIN_AFTER_S:
            self._more += 1
            return
        more = f" ({self._more} more times since)" if line == self._last and self._more else ""
        self._last, self._said_s, self._more = line, now_s, 0
        self._log.warning("%s", f"{line}{more}; {next_step}" if next_step else f"{line}{more}")
