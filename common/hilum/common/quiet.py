"""Keeps third-party packages from opening connections and from printing what they read, and lets ours be printed.

A hospital opens no connection but the one to its federation: telemetry, update checks and run-time installs are off
before the package that would do them is imported.
"""

import io
import logging
import os
import sys

# https://flower.ai/docs/framework: names as read by flwr 1.41.
OUTBOUND_OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


_TIME = "%Y-%m-%d %H:%M:%S"


def close_outbound() -> None:
    """Set the switches for this process and for what it starts. Call it before Flower or Ray is imported."""
    os.environ.update(OUTBOUND_OFF)


def show_any_text() -> None:
    """Let stdout and stderr take any text: what their encoding lacks is shown as an escape.

    A file name may be no UTF-8 (PEP 383), and a terminal may know ASCII alone; neither is a reason to end a command.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def configure_logging() -> None:
    """Log warnings and worse to stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("flwr").propagate = False  # it has a handler of its own


def log_plainly() -> None:
    """Log what people watch for days: the time and one line, to stderr, without colours. Flower's warnings too."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt=_TIME, force=True)
    logging.getLogger("hilum").setLevel(logging.INFO)
    flower = logging.getLogger("flwr")  # its own handler colours lines even in a pipe
    flower.handlers.clear()
    flower.setLevel(logging.WARNING)
    flower.propagate = True
