"""What the machine refused, in words that say what to do: a full disk, a folder that can't be written, too little memory.

Libraries raise their own errors where the system says no, some of them without its number: an array that is written in
part, a checkpoint, a database. All of them are told alike, and none is taken for a defect of Hilum's.
"""

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FULL = "is full"
_QUOTA = "is full for this user"
_MEMORY = "the machine has no memory left"
_OF_NUMBER = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _QUOTA,
    errno.EFBIG: "takes no file of this size (see `ulimit -f`)",
    errno.EACCES: "may not be written or read by this user",
    errno.EPERM: "may not be written or read by this user",
    errno.EROFS: "can only be read",
    errno.ENOTDIR: "is a file, or lies below one",
    errno.EEXIST: "is a file, or lies below one",
    errno.EISDIR: "holds a folder where a file is needed",
    errno.ENAMETOOLONG: "has too long a name",
    errno.EIO: "can't be read or written (input/output error); the disk may be failing",
    errno.ESTALE: "lies on a network folder that went away",
}
_TAKES_NOTHING = "takes no files or folders"
_OF_SQLITE = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: "can only be read",
    sqlite3.SQLITE_PERM: "may not be written or read by this user",
    sqlite3.SQLITE_CANTOPEN: "can't be opened: it is full, or this user may not write there",
    sqlite3.SQLITE_IOERR: "can't be read or written: it is full, or the disk is failing",
    sqlite3.SQLITE_BUSY: "is in use by another process for too long; wait until that one ends",
    sqlite3.SQLITE_LOCKED: "is in use by another process for too long; wait until that one ends",
}
# Words of errors that carry no number, by the library that raises them.
_OF_WORDS = (
    ("no space left on device", _FULL),  # safetensors, h5py
    ("disk quota exceeded", _QUOTA),
    (" requested and ", _FULL),  # numpy.ndarray.tofile: "8 requested and 0 written"
    ("not enough free space", _FULL),  # the same, before it writes
    ("pytorchstreamwriter failed", _FULL),  # torch.save
    ("unexpected pos", _FULL),  # torch.save, when it closes what it could not write
    ("file size limit exceeded", _OF_NUMBER[errno.EFBIG]),
    ("read-only file system", _OF_NUMBER[errno.EROFS]),
)
_MEMORY_WORDS = ("can't allocate memory", "cannot allocate memory", "out of memory", "can't start new thread")
_NOT_MAPPED = "failed to map segment from shared object"
_NEEDS_OTHER_FOLDER = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_LITTLE_BYTES = 1 << 20
_PROBE_BYTES = 64 << 20
_LITTLE_SHARE = 0.001


@dataclass(frozen=True)
class MachineProblem:
    """What was refused.

    Attributes:
        what: The folder or thing, as a person knows it.
        state: What is the matter with it, a verb first.
        remedy: What to do.
    """

    what: str
    state: str
    remedy: str

    @property
    def short(self) -> str:
        """What is the matter, without the remedy."""
        return f"{self.what} {self.state}".strip()

    def __str__(self) -> str:
        return f"{self.short}: {self.remedy}"


class _Places:
    """The folders that this process writes to, by the words of whoever named them."""

    def __init__(self) -> None:
        self._named: dict[str, Path] = {}

    def name(self, words: str, folder: Path) -> None:
        self._named[words] = folder.absolute()

    def of(self, file: str) -> str | None:
        """Return the innermost named folder that a file lies in."""
        path = Path(file).absolute()
        above = [
            (len(folder.parts), words)
            for words, folder in self._all().items()
            if path == folder or folder in path.parents or path in folder.parents
        ]
        return max(above)[1] if above else None

    def full(self) -> str | None:
        """Return the first named folder whose disk has next to nothing left."""
        return next((words for words, folder in self._all().items() if _is_full(folder)), None)

    def _all(self) -> dict[str, Path]:
        try:
            return {**self._named, "the temporary folder (TMPDIR)": Path(tempfile.gettempdir())}
        except FileNotFoundError:
            return self._named


_PLACES = _Places()


def name_place(words: str, folder: Path) -> Path:
    """Tell how a folder that this process writes to is called when it can't be; give the folder back."""
    _PLACES.name(words, folder)
    return folder


def machine_problem(error: BaseException) -> MachineProblem | None:
    """Return what the machine refused behind an error, or None where the error is of another kind.

    Nothing of the error's own text is repeated: it may quote a path from an archive.
    """
    for found in _chain(error):
        problem = _of_memory(found) or _of_files(found) or _of_system(found) or _of_sqlite(found)
        if problem is not None:
            return problem
    return None


def _of_memory(error: BaseException) -> MachineProblem | None:
    words = str(error).lower() if isinstance(error, RuntimeError) else ""
    number = error.errno if isinstance(error, OSError) else None
    told = number == errno.ENOMEM or isinstance(error, MemoryError) or any(w in words for w in _MEMORY_WORDS)
    # A library that ran out of memory while it was imported is not mapped, or may leave Python without any error to tell.
    told = told or (isinstance(error, ImportError) and str(error).endswith(_NOT_MAPPED))
    if told or (isinstance(error, SystemError) and _is_starved()):
        where = "the GPU has no memory left" if "cuda" in words or "hip" in words else _MEMORY
        return MachineProblem(
            where,
            "",
            "end other programs, choose a smaller batch_size or image_size, or use a larger machine",
        )
    return None


def _is_starved() -> bool:
    """Tell whether this process can't have a little more memory."""
    try:
        bytearray(_PROBE_BYTES)
    except MemoryError:
        return True
    return False


def _of_files(error: BaseException) -> MachineProblem | None:
    if not isinstance(error, OSError):
        return None
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return MachineProblem(
            "this process",
            "may not open so many files",
            "raise the limit (`ulimit -n 4096`) and run it again",
        )
    if error.errno == errno.ENOENT and "temporary directory" in str(error):
        return MachineProblem(
            "no temporary folder", "can be written", "make room in it, or set TMPDIR to another folder"
        )
    return None


def _of_system(error: BaseException) -> MachineProblem | None:
    state = _OF_NUMBER.get(error.errno or 0) if isinstance(error, OSError) else None
    if (state is None and isinstance(error, OSError | RuntimeError)) or type(
        error
    ).__name__ == "SafetensorError":
        words = str(error).lower()
        state = next((state for part, state in _OF_WORDS if part in words), None)
    if state is None and isinstance(error, FileNotFoundError) and _takes_nothing(error.filename):
        state = _TAKES_NOTHING
    if state is None:
        return None
    file = error.filename if isinstance(error, OSError) and isinstance(error.filename, str) else None
    full = state in {_FULL, _QUOTA}
    what = _PLACES.of(file) if file else _PLACES.full() if full else None
    if full:
        what = f"the disk of {what}" if what else "a disk"
        return MachineProblem(what, state, "make room, or choose a folder on another disk, and run it again")
    remedy = (
        "choose another folder, or change who may write there"
        if state == _TAKES_NOTHING or (isinstance(error, OSError) and error.errno in _NEEDS_OTHER_FOLDER)
        else "mend that, or choose another folder"
    )
    return MachineProblem(what or "a folder that is needed", state, remedy)


def _takes_nothing(file: object) -> bool:
    """Tell whether the folder of a file that was not found is there, but refuses every new name as not found (/proc does)."""
    folder = Path(file).parent if isinstance(file, str) else None
    if folder is None or not folder.is_dir():
        return False
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _of_sqlite(error: BaseException) -> MachineProblem | None:
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the extended codes have their kind in the low byte
    state = _OF_SQLITE.get(code)
    if state is None:
        return None
    busy = code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    remedy = "run it again" if busy else "make room or change who may write there, and run it again"
    return MachineProblem(_database_place(state), state, remedy)


def _database_place(state: str) -> str:
    where = _PLACES.full() if state == _FULL else None
    return f"the disk of {where}" if where else "the database in the state folder"


def _is_full(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    left = disk.f_bavail * disk.f_frsize
    return (
        left < _LITTLE_BYTES
        or left < _LITTLE_SHARE * disk.f_blocks * disk.f_frsize
        or disk.f_favail == 0 < disk.f_files
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return an error, and those that it was raised from or, where it names no cause, while handling."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
