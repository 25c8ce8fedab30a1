"""What the network brought: DICOM files in the site's state, under names that no sender chose.

<state>/inbox/ab/cd/<32 hex>.dcm    an object as it came, named by the pseudonym of its SOP Instance UID
<state>/incoming/<process>/         objects on their way; what a killed process left there is removed

A file is flushed to disk before it gets its name, so whatever is in the inbox is whole. What is there, or was and was
removed as needed no more (`inbox_cleanup`), is not pulled again.
"""

import errno
import fcntl
import filecmp
import io
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag

from hilum.client.intake.sources.inbox_cleanup import remembered
from hilum.client.intake.sources.sources import key_if_removed
from hilum.client.intake.transfer_syntaxes import DEFLATED
from hilum.client.state.workspace import Pseudonyms, Workspace
from hilum.common.errors import DataError
from hilum.common.files import private_folder, sync_folder

GIB = 1 << 30
MAX_OBJECT_BYTES = 4 * GIB
RESERVE_BYTES = 2 * GIB  # the disk is never filled further than this
_HEAD_BYTES = 1 << 20  # the UIDs of group 0008 stand within it, and so a forged length costs no more memory
_SOP_INSTANCE = 0x00080018
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class NoRoomError(DataError):
    """The disk that holds the site's state is as good as full."""


class OversizedError(DataError):
    """One object is larger than the limit."""


class MismatchError(DataError):
    """The bytes are not the object that they were said to be."""


def is_uid(text: str) -> bool:
    """Tell whether a text from the network is a UID: digits and dots, 64 at most (PS3.5 section 9.1).

    A component with a leading zero is let through, though the standard forbids it: old scanners write them.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None  # noqa: PLR2004 - the standard's own number


class Inbox:
    """Takes objects in, one whole file each. A context: what is still on its way at the end is removed.

    Args:
        workspace: The site's state.
        max_bytes: Of one object.
        reserve_bytes: Free disk below which nothing more is taken.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        max_bytes: int = MAX_OBJECT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.folder, self._workspace = workspace.inbox, workspace
        self.max_bytes, self.reserve_bytes = max_bytes, reserve_bytes
        self._names: Pseudonyms = workspace.pseudonyms()
        self._all_incoming = workspace.folder / "incoming"
        self.incoming = self._all_incoming / secrets.token_hex(8)
        self._lock = -1

    def __enter__(self) -> Self:
        for folder in (self.folder, self._all_incoming):
            private_folder(folder)
        with _locked(self._all_incoming):  # so that nobody takes a folder for abandoned before it is locked
            self._remove_abandoned()
            self.incoming.mkdir(mode=0o700)
            self._lock = os.open(self.incoming, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.incoming, ignore_errors=True)
        os.close(self._lock)

    def _remove_abandoned(self) -> None:
        """Remove each folder whose lock is free: it belongs to a process that has ended."""
        for folder in self._all_incoming.iterdir():
            try:
                handle = os.open(folder, os.O_RDONLY)
            except FileNotFoundError:  # its process has just ended and removed it
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)

    def has(self, sop_uid: str) -> bool:
        """Tell whether the object is here, whole, or was and is needed no more."""
        if not is_uid(sop_uid):
            return False
        path = self._path(sop_uid)
        return path.exists() or self._key_if_removed(path) in self._removed

    @cached_property
    def _removed(self) -> frozenset[str]:
        return remembered(self._workspace)

    def _key_if_removed(self, path: Path) -> str:
        return key_if_removed(path.relative_to(self.folder).as_posix(), self._names)

    def check_room(self, size_bytes: int = 0) -> None:
        """See that an object still fits.

        Raises:
            NoRoomError: If it would take the free disk below the reserve.
        """
        free_bytes = shutil.disk_usage(self._all_incoming).free
        if free_bytes - size_bytes < self.reserve_bytes:
            raise NoRoomError(
                f"the disk of the state folder is nearly full: {free_bytes / GIB:.1f} GiB free, and "
                f"{self.reserve_bytes / GIB:.1f} GiB are kept free; make room, or move the state with --home"
            )

    def store(self, sop_uid: str, content: bytes | Iterable[bytes]) -> bool:
        """Take one object in DICOM file format.

        Args:
            sop_uid: The instance that the bytes are said to be.
            content: The whole file, or its parts in order.

        Returns:
            False if the very same bytes were here already.

        Raises:
            NoRoomError: If the disk is nearly full.
            OversizedError: If it has more than `max_bytes`.
            MismatchError: If the UID is none, or the bytes are not a DICOM file or another instance's.
        """
        self.check_room()
        path = self.incoming / secrets.token_hex(8)
        try:
            with _room_or_error(), _create(path) as file:
                size_bytes = 0
                for part in (content,) if isinstance(content, bytes) else content:
                    size_bytes += len(part)
                    if size_bytes > self.max_bytes:
                        raise OversizedError(f"an object is larger than {self.max_bytes / GIB:.1f} GiB")
                    file.write(part)
            return self.adopt(sop_uid, path)
        finally:
            path.unlink(missing_ok=True)

    def adopt(self, sop_uid: str, path: Path) -> bool:
        """Take over a file that was written into `incoming`. When this returns, it survives a power cut.

        Returns:
            False if the very same bytes were here already; the file in `incoming` is then left to the caller.

        Raises:
            NoRoomError, OversizedError, MismatchError: As `store`.
        """
        if not is_uid(sop_uid):
            raise MismatchError("an object came under a name that is not a UID")
        if path.stat().st_size > self.max_bytes:
            raise OversizedError(f"an object is larger than {self.max_bytes / GIB:.1f} GiB")
        self.check_room()
        if stated_uid(path) != sop_uid:
            raise MismatchError("an object is not a DICOM file, or not the instance that was announced")
        final = self._path(sop_uid)
        if final.exists() and filecmp.cmp(path, final, shallow=False):
            return False
        with _room_or_error():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            self._make_folder(final.parent)
            path.replace(final)
            sync_folder(final.parent)
        return True

    def _make_folder(self, folder: Path) -> None:
        if not folder.exists():
            private_folder(folder)
            sync_folder(folder.parent)
            sync_folder(self.folder)

    def _path(self, sop_uid: str) -> Path:
        name = self._names.of("sop", sop_uid)
        return self.folder / name[:2] / name[2:4] / f"{name}.dcm"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder: one process at a time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _create(path: Path) -> BinaryIO:
    """Return a new file that its owner alone can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


class _room_or_error:  # noqa: N801 - used as a verb: `with _room_or_error():`
    """Turns a full disk into one clear error."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise NoRoomError(
                "the disk of the state folder is full; make room, or move it with --home"
            ) from None


def stated_uid(path: Path) -> str:
    """Return the SOP Instance UID (0008,0018) that a DICOM file states, or an empty text where it states none.

    Only the first MiB is looked at, and of a deflated file only the file meta information (0002,0003): inflating is
    the indexer's, within its limits.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[128:132] != b"DICM":
        return ""
    try:
        with pydicom_config.disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            meta = _read_meta(head)
            if str(meta.get("TransferSyntaxUID", "")) == DEFLATED:
                return _text(meta, "MediaStorageSOPInstanceUID")
            return _text(read_partial(io.BytesIO(head), stop_when=_behind_uid), "SOPInstanceUID")
    except Exception:
        # pydicom raises what its parsers happen to raise on broken input; such a file states nothing.
        return ""


def _read_meta(head: bytes) -> Dataset:
    """Group 0002, always explicit VR little endian (PS3.10 section 7.1)."""
    buffer = io.BytesIO(head)
    buffer.seek(132)
    return read_dataset(buffer, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)  # noqa: PLR2004


def _text(dataset: Dataset, name: str) -> str:
    return str(dataset.get(name) or "").strip("\0 ")


def _behind_uid(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _SOP_INSTANCE
