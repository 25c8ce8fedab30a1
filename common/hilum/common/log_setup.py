"""How a process logs to stderr: as a command that ends, or as a service that runs for days."""

import logging

_TIME = "%Y-%m-%d %H:%M:%S"


def configure_logging() -> None:
    """Log as a command does: warnings and worse."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("flwr").propagate = False  # it has a handler of its own


def log_plainly() -> None:
    """Log as a service does, what people watch for days: the time and one line, without colours. Flower's warnings too."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt=_TIME, force=True)
    logging.getLogger("hilum").setLevel(logging.INFO)
    flower = logging.getLogger("flwr")  # its own handler colours lines even in a pipe
    flower.handlers.clear()
    flower.setLevel(logging.WARNING)
    flower.propagate = True
