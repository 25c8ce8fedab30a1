"""Which files are there, and which have changed since the last look."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hilum.common.errors import DataError

READING = 2
"""How files are read. Raise it where the same file becomes another item, or none: then the next index reads all again."""


@dataclass(frozen=True)
class FoundFile:
    """One file of the archive.

    Attributes:
        path: Where it lies; an identifier, so it is never stored nor shown.
        identity: How files are read, size, time of change and inode. While they stay the same, so does what it gave.
        readable: False for a folder or file that could not even be looked at.
    """

    path: Path = field(repr=False)
    identity: str = ""
    readable: bool = True


def identity_of(status: os.stat_result) -> str:
    """The identity of a file; see `FoundFile`."""
    return f"{READING}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def scan(archive: Path) -> Iterator[FoundFile]:
    """Walk an archive in a stable order. Links to folders are not followed, so there are no loops.

    Raises:
        DataError: If the archive is no folder that can be read.
    """
    if not archive.exists():
        raise DataError("the archive folder does not exist; check the path (is the share mounted?)")
    if not archive.is_dir():
        raise DataError("the archive is a file; give the folder that holds the DICOM files")
    if not os.access(archive, os.R_OK | os.X_OK):
        raise DataError("the archive folder can't be read; this user needs read permission on it")
    yield from _walk(archive)


def _walk(folder: Path) -> Iterator[FoundFile]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        yield FoundFile(folder, readable=False)
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path)
                continue
            status = entry.stat()
        except OSError:
            yield FoundFile(path, readable=False)
            continue
        if stat.S_ISREG(status.st_mode):
            yield FoundFile(path, identity_of(status))
        elif not stat.S_ISDIR(status.st_mode):
            # A pipe, socket or device: opening one could wait for ever.
            yield FoundFile(path, readable=False)
