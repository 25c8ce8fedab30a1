"""The slow way to a header: pydicom reads the same tags from anything that the walker was not sure of.

Nothing here is safe against a hostile file by itself: it belongs in a process with a memory and a time limit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pydicom
import pydicom.config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import PersonName

from hilum.client.intake.headers.injections import told
from hilum.client.intake.headers.pet_tags import (
    INJECTIONS,
    NOTED_OF_PET,
    OF_INJECTION,
    OF_SERIES,
    PET,
    TAKEN_OF_PET,
    drop_other_makers,
)
from hilum.client.intake.headers.shown_encoding import HEAD_BYTES as SHOWN_BYTES
from hilum.client.intake.headers.shown_encoding import Shown, effective_syntax, shown_encoding
from hilum.client.intake.headers.sop_classes import taken
from hilum.client.intake.headers.tags import (
    IMPLICIT_PIXEL_VRS,
    NOTED,
    TAKEN,
    PixelElement,
    Tags,
    Value,
)
from hilum.client.intake.pixels.layout import inflate_bounded
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.silence import silent_readers
from hilum.client.intake.transfer_syntaxes import DEFLATED

_PREAMBLE_BYTES = 132
_META_GROUP = 0x0002
_PIXEL_GROUP = 0x7FE0
_UNDEFINED = 0xFFFF_FFFF
_FIRST_GROUPS = (b"\x08\x00", b"\x02\x00", b"\x00\x08")  # of a file without a preamble
_LONG_HEAD_BYTES, _SHORT_HEAD_BYTES = 12, 8


def pydicom_tags(path: Path) -> Tags:
    """Read the wanted tags with pydicom.

    A deflated data set is inflated up to a bound, and only if its SOP class is one of an image that is taken.

    Raises:
        Skip: If the file can't be read, is not a DICOM file, or its header is broken.
    """
    with _opened(path) as file:
        return _read(file)


def whole_dataset(path: Path, *, deflated: bool = False) -> Dataset:
    """Read everything before the pixels, for the objects whose geometry lies in sequences.

    Raises:
        Skip: If the header is broken, or inflates beyond its bound.
    """
    with _opened(path) as file:
        if deflated:
            inflated = _inflated(file)
            inflated.seek(0)
            return pydicom.dcmread(inflated, stop_before_pixels=True, force=True)
        syntax, _media_class, start = _meta(file)
        return _dataset(file, start, syntax, None)[0]


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for pydicom, which raises what its parsers happen to raise: the file is counted, not guessed at."""
    try:
        with silent_readers(), path.open("rb") as file:
            yield file
    except Skip:
        raise
    except OSError as error:
        # pydicom raises an OSError of its own, without a number, for a sequence that ends too early.
        raise Skip(Reason.DAMAGED_HEADER if error.errno is None else Reason.UNREADABLE) from None
    except Exception:
        raise Skip(Reason.DAMAGED_HEADER) from None


def _read(file: BinaryIO) -> Tags:
    syntax, media_class, start = _meta(file)
    size_bytes = file.seek(0, 2)
    if syntax == DEFLATED:
        if taken(media_class) is None:
            return Tags({}, syntax, media_class, size_bytes, None)
        file.seek(0)
        file, start = _inflated(file), 0
        size_bytes = file.seek(0, 2)
    dataset, shown = _dataset(file, start, syntax, [*TAKEN_OF_PET, *NOTED_OF_PET])
    return Tags(
        _values(dataset),
        effective_syntax(syntax, shown),
        media_class,
        size_bytes,
        _pixel_element(file, shown),
    )


def _meta(file: BinaryIO) -> tuple[str, str, int]:
    """Transfer syntax and SOP class of the file meta information, and where the data set starts.

    Raises:
        Skip: If this is not a DICOM file, or one that begins like one and states no syntax.
    """
    begin = file.read(_PREAMBLE_BYTES)
    has_preamble = begin[128:] == b"DICM"
    if not has_preamble and begin[:2] not in _FIRST_GROUPS:
        raise Skip(Reason.NOT_DICOM)
    file.seek(_PREAMBLE_BYTES if has_preamble else 0)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_behind_meta)
    syntax = str(meta.get("TransferSyntaxUID") or "")
    if has_preamble and not syntax:
        raise Skip(Reason.DAMAGED_HEADER)
    return syntax, str(meta.get("MediaStorageSOPClassUID") or ""), file.tell()


def _dataset(file: BinaryIO, start: int, syntax: str, tags: Sequence[int] | None) -> tuple[Dataset, Shown]:
    """Everything before the pixels, or what is wanted of it, as the data set itself shows that it is encoded."""
    file.seek(start)
    shown = shown_encoding(file.read(SHOWN_BYTES), syntax)
    file.seek(start)
    wanted: list[BaseTag | int] | None = None if tags is None else [Tag(tag) for tag in tags]
    return read_dataset(file, *shown, stop_when=_at_pixels, specific_tags=wanted), shown


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in IMPLICIT_PIXEL_VRS


def _inflated(file: BinaryIO) -> BinaryIO:
    """Return the data set of a deflated file as one that is not, bounded (PS3.5 section A.5).

    Raises:
        Skip: If it inflates beyond its bound, or is broken.
    """
    file.seek(_PREAMBLE_BYTES if file.read(_PREAMBLE_BYTES)[128:] == b"DICM" else 0)
    read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_behind_meta)
    return BytesIO(inflate_bounded(file.read()))


def _behind_meta(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != _META_GROUP


def _values(dataset: Dataset) -> dict[str, Value]:
    values: dict[str, Value] = {
        keyword: plain(dataset[tag].value) for tag, (keyword, _) in TAKEN.items() if tag in dataset
    }
    if "PatientID" in values:
        values["PatientID"] = plain(_as_written(dataset["PatientID"].value))
    values |= {keyword: True for tag, keyword in NOTED.items() if tag in dataset}
    return values | _of_pet(dataset) if values.get("SOPClassUID") == PET else values


def _of_pet(dataset: Dataset) -> dict[str, Value]:
    """Return what is wanted of PET alone: an image is good without, so that what can't be read is as if it were not there."""
    values: dict[str, Value] = {}
    for tag, (keyword, _) in OF_SERIES.items():
        with suppress(Exception):
            if tag in dataset:
                values[keyword] = plain(dataset[tag].value)
    drop_other_makers(values)
    items: list[dict[str, Value]] = []
    if INJECTIONS not in dataset:
        return values
    with suppress(Exception):
        found = dataset[INJECTIONS].value
        items = [_of_injection(item) for item in found] if isinstance(found, Items) else []
    return values | told(items)


def _of_injection(item: Dataset) -> dict[str, Value]:
    return {keyword: plain(item[tag].value) for tag, (keyword, _) in OF_INJECTION.items() if tag in item}


def _as_written(value: Any) -> Any:
    """Return an identifier as it stands in the file: 0012 is not 12, in whatever VR it is written."""
    if isinstance(value, MultiValue):
        return tuple(map(_as_written, value))
    return getattr(value, "original_string", value)


def plain(value: Any) -> Value:
    """Return a pydicom value as str, int, float, a tuple of these, or None; what is none of these is shown as text."""
    if value is None or type(value) in (str, int, float):
        return value  # type: ignore[no-any-return] # the line above says which it is
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, PersonName):
        return str(value)
    return tuple(plain(one) or "" if one is None else plain(one) for one in value)  # type: ignore[misc]


def _pixel_element(file: BinaryIO, shown: Shown) -> PixelElement | None:
    """Read the head of the element at which pydicom stopped."""
    implicit, little = shown
    start = file.tell()
    head = file.read(_LONG_HEAD_BYTES)
    order: Literal["little", "big"] = "little" if little else "big"
    if len(head) < _LONG_HEAD_BYTES or int.from_bytes(head[:2], order) != _PIXEL_GROUP:
        return None
    if implicit:
        tag = _PIXEL_GROUP << 16 | int.from_bytes(head[2:4], order)
        vr, offset = IMPLICIT_PIXEL_VRS.get(tag, "OW"), start + _SHORT_HEAD_BYTES
        length = int.from_bytes(head[4:8], order)
    else:
        vr = head[4:6].decode("latin-1")
        offset, length = start + _LONG_HEAD_BYTES, int.from_bytes(head[8:12], order)
    return PixelElement(vr, offset, None if length == _UNDEFINED else length)
