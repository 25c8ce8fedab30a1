"""What a file is that is not DICOM, as far as it matters to the person who looks for a missing image.

Only files that have no DICOM header, or the name of a picture, come here: the images of an archive cost nothing more.
"""

import os
from pathlib import Path

from hilum.client.intake.formats.nifti import is_nifti
from hilum.client.intake.formats.raster import is_raster
from hilum.client.intake.reasons import Reason

_FIRST_BYTES = 512
_DICOM_MARK = slice(128, 132)
_TAR_MARK = slice(257, 262)  # POSIX.1-2017, pax: ustar interchange format
_PACKED = (
    b"PK\x03\x04",  # ZIP (APPNOTE.TXT 4.3.7), and one without files or of several parts
    b"PK\x05\x06",
    b"PK\x07\x08",
    b"\x1f\x8b",  # gzip (RFC 1952)
    b"\x1f\x9d",  # compress
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",  # Zstandard (RFC 8878)
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"LZIP",
    b"\x04\x22\x4d\x18",  # LZ4 frame
)
_PACKED_SUFFIXES = (".tar", ".zip", ".7z", ".rar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".lzma", ".iso")
_ZIP_NAME = 30  # where the name of the first member begins (APPNOTE.TXT 4.3.7)
_DOCUMENTS = (b"[Content_Types].xml", b"_rels/", b"mimetype", b"META-INF/")
"""First members of office files, e-books and Java archives: ZIP files that nobody packed images into."""
_ZIP_NAME_LENGTH = slice(26, 28)
_ARRAYS = b".npy"  # NumPy's .npz is a ZIP file of these
_APPLE_DOUBLE = b"\x00\x05\x16\x07"  # RFC 1740
_SYSTEM_NAMES = frozenset(
    (".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", ".localized")
)


def is_folder_file(path: Path) -> bool:
    """Tell whether a file's name says that it is one of those that research folders hold."""
    return is_nifti(path) or is_raster(path)


def is_dicom(path: Path) -> bool:
    """Tell whether a file begins as one in DICOM's file format does (PS3.10 section 7.1), whatever its name says."""
    try:
        return _start(path)[_DICOM_MARK] == b"DICM"
    except OSError:
        return False


def what_it_is(path: Path) -> Reason:
    """Return the reason under which a file without a DICOM header counts."""
    if path.name.lower() in _SYSTEM_NAMES:
        return Reason.SYSTEM_FILE
    try:
        start = _start(path)
    except OSError:
        return Reason.UNREADABLE
    if start.startswith(_APPLE_DOUBLE):
        return Reason.SYSTEM_FILE
    if is_folder_file(path):
        return Reason.NEEDS_FAMILY
    if _is_packed(path, start):
        return Reason.PACKED
    return Reason.NOT_DICOM


def _start(path: Path) -> bytes:
    # A pipe that has taken the file's place must not be waited for.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(handle, _FIRST_BYTES)
    finally:
        os.close(handle)


def is_apple_double(path: Path) -> bool:
    """Tell whether a file holds what macOS keeps beside another: its name begins with `._`, and so does its content say."""
    return path.name.startswith("._") and what_it_is(path) == Reason.SYSTEM_FILE


def _is_packed(path: Path, start: bytes) -> bool:
    if start.startswith(b"PK"):
        length = int.from_bytes(start[_ZIP_NAME_LENGTH], "little")
        first = start[_ZIP_NAME:][:length]
        return start.startswith(_PACKED) and not (first.startswith(_DOCUMENTS) or first.endswith(_ARRAYS))
    named = path.name.lower().endswith(_PACKED_SUFFIXES)
    return named or start.startswith(_PACKED) or start[_TAR_MARK] == b"ustar"
