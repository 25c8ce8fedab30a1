"""Keep libraries from saying what they read: their warnings and logs quote addresses, UIDs and values."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pydicom.config

_READERS = ("pydicom", "highdicom")
_CHATTY = ("pydicom", "pynetdicom", "dicomweb_client", "requests", "urllib3", "retrying")


@contextmanager
def silent_readers() -> Iterator[None]:
    """Keep them silent while a file is read, whose fate is counted anyway; pydicom then judges no value either."""
    logs = [logging.getLogger(name) for name in _READERS]
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)


def silence_libraries() -> None:
    """Keep them silent for the whole process, that of a command which talks to the network."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for module in ("pydicom", "pynetdicom", "dicomweb_client", "urllib3"):
        warnings.filterwarnings("ignore", module=module)
