"""Opening a DICOM object that is not an image, without trusting it: its class and syntax first, then what is asked of it.

For decoding processes alone.
"""

from pathlib import Path
from typing import Any

import pydicom
import pydicom.config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from hilum.client.intake.formats.naming import Code
from hilum.client.intake.reasons import Reason, Skip

SYNTAXES = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless}
"""A deflated object inflates without bound, and the other codecs die on hostile input."""
MAX_BYTES = 1 << 30


def sop_class_of(path: Path) -> str:
    """Return the class (0002,0002) of a DICOM file.

    Raises:
        Skip: If it can't be opened or its first part is broken.
    """
    _size_bytes, meta = _size_and_meta(path)
    return str(meta.get("MediaStorageSOPClassUID", ""))


def check_size_and_syntax(path: Path) -> None:
    """Judge an object before it is read.

    Raises:
        Skip: If it is too large, or compressed in a way that is not read.
    """
    size_bytes, meta = _size_and_meta(path)
    if size_bytes > MAX_BYTES:
        raise Skip(Reason.TOO_LARGE)
    if str(meta.get("TransferSyntaxUID", "")) not in SYNTAXES:
        raise Skip(Reason.UNSUPPORTED_SYNTAX)


def _size_and_meta(path: Path) -> tuple[int, FileMetaDataset]:
    try:
        return path.stat().st_size, pydicom.filereader.read_file_meta_info(path)
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    except MemoryError:
        raise
    except Exception:
        raise Skip(Reason.DAMAGED_HEADER) from None


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none where it is absent or no sequence."""
    value = dataset.get(keyword)
    return [one for one in value if isinstance(one, Dataset)] if isinstance(value, pydicom.Sequence) else []


def text(dataset: Dataset, keyword: str) -> str:
    """Return a value as text; empty where it is absent."""
    return str(dataset.get(keyword) or "").strip()


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Return a list of so many numbers; None where it is anything else."""
    try:
        found = tuple(float(one) for one in value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count else None


def code_in(dataset: Dataset, keyword: str, modifier: str = "") -> Code | None:
    """Return the first concept of a code sequence (PS3.3 section 8.8).

    Args:
        dataset: That holds the sequence.
        keyword: Of the sequence.
        modifier: Keyword of the sequence that narrows the concept: beside it, or inside it.
    """
    for one in items(dataset, keyword):
        narrowing = code_in(dataset, modifier) or code_in(one, modifier) if modifier else None
        return Code(text(one, "CodingSchemeDesignator"), text(one, "CodeValue"), narrowing)
    return None
