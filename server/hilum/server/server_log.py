"""The server's log: one line for each thing that an admin asks about later, on stderr and in a file of its owner's."""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

from hilum.server.sites import RegisteredSite

LOST_AFTER_S = 15.0
_FILE_BYTES, _FILES = 10 * 2**20, 5
_log = logging.getLogger(__name__)


def log_to_stderr() -> None:
    """Send all log lines to stderr, with their time."""
    _log_to(logging.StreamHandler(sys.stderr))


def log_to(path: Path) -> None:
    """Send all log lines to stderr and to a file that is rotated; the umask keeps it from others."""
    file = RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8")
    _log_to(logging.StreamHandler(sys.stderr), file)


def _log_to(*handlers: logging.Handler) -> None:
    lines = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    lines.converter = time.gmtime
    for handler in handlers:
        handler.setFormatter(lines)
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.getLogger("hilum").setLevel(logging.INFO)
    logging.getLogger("flwr").propagate = False  # it has a handler of its own
    logging.getLogger("asyncio").setLevel(
        logging.ERROR
    )  # its warnings tell of callers that hung up, without a name


class SiteWatch:
    """Tells of each site that is approved or revoked, connects for the first time, is lost, or comes back."""

    def __init__(self) -> None:
        self._status: dict[str, tuple[str, str]] | None = None
        self._there: dict[str, bool] = {}

    def look_at_registry(self, sites: Sequence[RegisteredSite]) -> None:
        """Compare the registry with how it was."""
        now = {site.name: (site.status, site.fingerprint) for site in sites}
        for name, (status, fingerprint) in now.items():
            if self._status is not None and self._status.get(name) != (status, fingerprint):
                _log.info("site %s is %s (key %s)", name, status, fingerprint)
        self._status = now

    def look_at_signs(self, seen: Mapping[str, float]) -> None:
        """Compare each site's last sign of life, in seconds ago, with how it was."""
        for name in sorted({*seen, *self._there}):
            there = seen.get(name, float("inf")) <= LOST_AFTER_S
            before = self._there.get(name)
            if there and before is None:
                _log.info("site %s connected", name)
            elif there and not before:
                _log.info("site %s is back", name)
            elif before and name not in seen:
                _log.info("site %s signed off", name)
            elif before and not there:
                _log.warning("site %s is lost: no sign of life for %g s", name, LOST_AFTER_S)
            if there or before is not None:
                self._there[name] = there
