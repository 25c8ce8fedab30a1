"""Say to people what is for them, and nothing of what third-party packages print: log formats, and text that any terminal takes."""

import io
import logging
import sys

_TIME = "%Y-%m-%d %H:%M:%S"


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
