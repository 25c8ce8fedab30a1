"""Files that survive a `kill -9`: written aside, flushed to disk, then renamed into place."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` when the block ends well, and vanishes when it does not.

    Args:
        path: The final place. Its folder is made if it is missing.
        private: Its owner alone may read it, whatever the umask, and a folder that is made for it likewise. A folder that
            is there stays as it is: it may be /tmp, or everybody's.

    Yields:
        A binary file to write to.
    """
    if not private:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.parent.exists():
        private_folder(path.parent)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with aside.open("xb") as file:
            if private:
                os.fchmod(file.fileno(), 0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def private_folder(path: Path) -> None:
    """Make a folder that its owner alone may look into, whatever the umask; one that is there is closed to others.

    What is missing above it is made in the same way.
    """
    if not path.exists():
        if not path.parent.exists():
            private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    status = path.stat()
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        path.chmod(0o700)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write `content` to `path` in one step: a reader sees the old file or the new one, never a part."""
    with replacing(path, private=private) as file:
        file.write(content)


def write_text(path: Path, content: str, *, private: bool = False) -> None:
    """Write UTF-8 text to `path` in one step."""
    write_bytes(path, content.encode(), private=private)


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write `value` as indented JSON to `path` in one step. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", private=private)


def read_json(path: Path) -> Any:
    """Read one JSON file."""
    return json.loads(path.read_text())


def read_safetensors_metadata(content: bytes) -> dict[str, str]:
    """Return the texts in the head of a safetensors file, which the library's own readers of bytes leave out."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]  # type: ignore[no-any-return]


def write_via(path: Path, save: Callable[[Path], None]) -> None:
    """Let a library that insists on a path write there, with the same all-or-nothing promise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{secrets.token_hex(4)}.partial.{path.name}")
    try:
        save(aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)
