"""Which files are there, and which have changed since the last look.

Names may be any bytes: what is not UTF-8 comes as Python has it, with surrogates (PEP 383), and opens as it is.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hilum.client.intake.reasons import Reason
from hilum.common.errors import DataError

READING = 4
"""How files are read. Raise it where the same file becomes another item, or none: then the next index reads all again."""


@dataclass(frozen=True)
class FoundFile:
    """One file of the archive, or something else that lies there and is counted as one.

    Attributes:
        path: Where it lies; an identifier, so it is never stored, and shown by `hilum site skipped` alone.
        identity: How files are read, size, time of change and inode. While they stay the same, so does what it gave.
        set_aside: Why it is not opened, where the look itself tells.
        mode: Its type and permissions.
    """

    path: Path = field(repr=False)
    identity: str = ""
    set_aside: Reason | None = None
    mode: int = 0


def identity_of(status: os.stat_result) -> str:
    """Return the identity of a file; see `FoundFile`."""
    return f"{READING}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def scan(archive: Path) -> Iterator[FoundFile]:
    """Walk an archive in a stable order, however deep.

    A link to a file is that file. A link to a folder is not followed, so there are no loops; it counts as one file that
    is set aside, as does all else that can't be opened. What is gone before it is looked at is not there.

    Raises:
        DataError: If the archive is not a folder that can be read.
    """
    if not archive.exists():
        raise DataError("the archive folder does not exist; check the path (is the share mounted?)")
    if not archive.is_dir():
        raise DataError("the archive is a file; give the folder that holds the DICOM files")
    if not os.access(archive, os.R_OK | os.X_OK):
        raise DataError("the archive folder can't be read; this user needs read permission on it")
    waiting = [_look_into(archive)]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
        elif isinstance(found, Path):
            waiting.append(_look_into(found))
        else:
            yield found


def _look_into(folder: Path) -> Iterator[FoundFile | Path]:
    """Return the files of one folder, and its folders as paths, by name."""
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        if error.errno != errno.ENOENT:
            too_long = error.errno == errno.ENAMETOOLONG
            yield FoundFile(folder, set_aside=Reason.PATH_TOO_LONG if too_long else Reason.UNREADABLE_FOLDER)
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            if entry.is_dir(follow_symlinks=False):
                yield path
                continue
            status = entry.stat()
        except OSError as error:
            if (reason := _why(entry, error)) is not None:
                yield FoundFile(path, set_aside=reason)
            continue
        yield FoundFile(path, identity_of(status), _set_aside(status), status.st_mode)


def _set_aside(status: os.stat_result) -> Reason | None:
    if stat.S_ISREG(status.st_mode):
        return None if status.st_size else Reason.EMPTY_FILE
    # A pipe, socket or device: opening one could wait for ever.
    return Reason.LINKED_FOLDER if stat.S_ISDIR(status.st_mode) else Reason.NOT_A_FILE


def _why(entry: os.DirEntry[str], error: OSError) -> Reason | None:
    """Why an entry can't be looked at; None where it is gone."""
    if error.errno == errno.ENAMETOOLONG:
        return Reason.PATH_TOO_LONG
    if entry.is_symlink():
        return Reason.DANGLING_LINK if error.errno in {errno.ENOENT, errno.ELOOP} else Reason.UNREADABLE
    return None if error.errno == errno.ENOENT else Reason.UNREADABLE
