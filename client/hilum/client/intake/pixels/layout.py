"""Where the pixels lie in a file, found without parsing the data set (PS3.5 sections 7 and A.4).

Nothing is read but the heads of the elements, nothing recurses, and nothing is allocated by a length that a file
claims. A deflated data set is inflated up to a bound before anything looks at it.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import DEFLATED, EXPLICIT_BIG, SUPPORTED_SYNTAXES

INFLATED_MAX_BYTES = 1 << 30

_UNDEFINED = 0xFFFF_FFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_PIXELS: dict[int, Literal["whole", "float", "double"]] = {
    0x7FE0_0010: "whole",
    0x7FE0_0008: "float",
    0x7FE0_0009: "double",
}
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = 0x7FE0_0001, 0x7FE0_0002
_FLOAT_PADDING = {"float": (0x0028_0122, 0x0028_0124, "f"), "double": (0x0028_0123, 0x0028_0125, "d")}
_KEPT = {_EXTENDED_OFFSETS, _EXTENDED_LENGTHS, 0x0028_0122, 0x0028_0123, 0x0028_0124, 0x0028_0125}
_PREAMBLE_BYTES = 132
_WINDOW_BYTES = 1 << 16


class ByteSource(Protocol):
    """Bytes that can be read from anywhere; `size` of them."""

    size: int

    def read_at(self, offset: int, count: int) -> bytes:
        """Return the bytes from `offset`; fewer than `count` at the end."""


class FileSource:
    """A file, with a window over the part last looked at, so that a walk over small heads costs few calls."""

    def __init__(self, descriptor: int) -> None:
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self._start, self._window = 0, b""

    def read_at(self, offset: int, count: int) -> bytes:
        """Return the bytes from `offset`; fewer than `count` at the end."""
        if count > _WINDOW_BYTES:
            return os.pread(self._descriptor, min(count, max(self.size - offset, 0)), offset)
        begin = offset - self._start
        if begin < 0 or begin + count > len(self._window):
            self._start, begin = offset, 0
            self._window = os.pread(self._descriptor, _WINDOW_BYTES, offset)
        return self._window[begin : begin + count]


class MemorySource:
    """An inflated data set."""

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = content

    def read_at(self, offset: int, count: int) -> bytes:
        """Return the bytes from `offset`; fewer than `count` at the end."""
        return self._content[offset : offset + count]


@dataclass(frozen=True)
class PixelElement:
    """The element that holds the pixels (PS3.3 section C.7.6.3).

    Attributes:
        kind: Whole numbers (7FE0,0010), float (7FE0,0008) or double (7FE0,0009).
        length: Bytes of the value, or None where it is encapsulated.
        words: The value is a row of 16-bit words (VR OW), which matters for 8-bit pixels in big endian.
        padding: Lowest and highest value of float pixels that means "no data" (0028,0122) to (0028,0125), or None.
        extended: Offset and length of each frame behind the first item (7FE0,0001), (7FE0,0002); often empty.
    """

    kind: Literal["whole", "float", "double"]
    offset: int
    length: int | None
    words: bool
    padding: tuple[float, float] | None = None
    extended: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Layout:
    """A data set in its source.

    Attributes:
        start: Offset of the first element behind the file meta information.
        implicit: No value representations are written.
        big_endian: Most significant byte first.
    """

    source: ByteSource = field(repr=False)
    start: int
    implicit: bool
    big_endian: bool
    pixels: PixelElement


@contextmanager
def open_layout(path: Path, syntax: str) -> Iterator[Layout]:
    """Open a file and find its pixels.

    Args:
        path: The file.
        syntax: Transfer syntax UID.

    Raises:
        Skip: If the file can't be read, its structure is broken, or it has no pixels.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    try:
        file: ByteSource = FileSource(descriptor)
        start = _behind_meta(file)
        if syntax == DEFLATED:
            file, start = MemorySource(inflate_bounded(file.read_at(start, file.size - start))), 0
        yield _layout(file, start, big_endian=syntax == EXPLICIT_BIG)
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    finally:
        os.close(descriptor)


def inflate_bounded(content: bytes) -> bytes:
    """Undo the deflated transfer syntax (PS3.5 section A.5), never beyond a bound.

    Raises:
        Skip: If it inflates by more than is plausible or beyond `INFLATED_MAX_BYTES`, or is broken.
    """
    limit = min(SUPPORTED_SYNTAXES[DEFLATED].max_compression * len(content), INFLATED_MAX_BYTES)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = engine.decompress(content, max(limit, 1))
    except zlib.error:
        raise Skip(Reason.DAMAGED_HEADER) from None
    if engine.eof:
        return inflated
    raise Skip(Reason.IMPLAUSIBLE_SIZE if engine.unconsumed_tail else Reason.TRUNCATED_PIXELS)


def _behind_meta(source: ByteSource) -> int:
    """Return where group 2 ends; it is explicit little endian in any syntax (PS3.10 section 7.1)."""
    position = _PREAMBLE_BYTES if source.read_at(128, 4) == b"DICM" else 0
    while source.read_at(position, 2) == b"\x02\x00":
        head = source.read_at(position, 12)
        if len(head) < 8:  # noqa: PLR2004 - the shortest head of an element
            break
        _vr, length, head_bytes = _explicit(head, "<")
        position += head_bytes + length
    return position


def _layout(source: ByteSource, start: int, *, big_endian: bool) -> Layout:
    # The first element's value representation shows what the data set is, whatever the syntax claims.
    implicit = not source.read_at(start + 4, 2).isalpha()
    order = ">" if big_endian and not implicit else "<"
    return Layout(
        source, start, implicit, order == ">", _find_pixels(source, start, order, implicit=implicit)
    )


def _explicit(head: bytes, order: str) -> tuple[bytes, int, int]:
    """VR, length of the value, and length of the head itself."""
    vr = head[4:6]
    if vr in _LONG_VRS:
        if len(head) < 12:  # noqa: PLR2004 - a long head
            raise Skip(Reason.DAMAGED_HEADER)
        return vr, struct.unpack_from(order + "I", head, 8)[0], 12
    return vr, struct.unpack_from(order + "H", head, 6)[0], 8


def _find_pixels(source: ByteSource, start: int, order: str, *, implicit: bool) -> PixelElement:
    """Walk the heads. Open sequences are counted on a list, so depth costs nothing.

    Raises:
        Skip: If the walk runs out of the file without having met pixels.
    """
    position = start
    opened: list[bool] = []  # for each open sequence or item, whether what follows it is implicit
    tables: dict[int, bytes] = {}
    while position + 8 <= source.size:
        head = source.read_at(position, 12)
        group, element = struct.unpack_from(order + "HH", head)
        tag = group << 16 | element
        if group == 0xFFFE:  # noqa: PLR2004 - items and their ends have no value representation
            implicit, length = _delimiter(tag, struct.unpack_from(order + "I", head, 4)[0], opened, implicit)
            position += 8 + length
            continue
        if implicit:
            vr, length, head_bytes = b"", struct.unpack_from(order + "I", head, 4)[0], 8
        else:
            vr, length, head_bytes = _explicit(head, order)
            if not vr.isalpha():
                raise Skip(Reason.DAMAGED_HEADER)
        position += head_bytes
        if not opened and tag in _PIXELS:
            return PixelElement(
                _PIXELS[tag],
                position,
                None if length == _UNDEFINED else length,
                vr in {b"OW", b""},
                _padding(tables, _PIXELS[tag], order),
                _extended(tables, order),
            )
        if length == _UNDEFINED:
            opened.append(implicit)
            implicit = implicit or vr == b"UN"  # PS3.5 section 6.2.2 note 2
            continue
        if not opened and tag in _KEPT:
            tables[tag] = source.read_at(position, length)
        position += length
    raise Skip(Reason.TRUNCATED_PIXELS)


def _delimiter(tag: int, length: int, opened: list[bool], implicit: bool) -> tuple[bool, int]:
    """Open or close by an item or an end. Gives whether what follows is implicit, and the bytes to pass over."""
    if tag in {_ITEM_END, _SEQUENCE_END}:
        if not opened:
            raise Skip(Reason.DAMAGED_HEADER)
        return opened.pop(), 0
    if tag == _ITEM and length == _UNDEFINED:
        opened.append(implicit)
        return implicit, 0
    return implicit, length


def _padding(tables: dict[int, bytes], kind: str, order: str) -> tuple[float, float] | None:
    """Return the Float or Double Float Pixel Padding Value and its range limit (PS3.3 sections C.7.6.24 and C.7.6.25)."""
    if kind not in _FLOAT_PADDING:
        return None
    value_tag, limit_tag, code = _FLOAT_PADDING[kind]
    value, limit = tables.get(value_tag, b""), tables.get(limit_tag, b"")
    size = struct.calcsize(code)
    if len(value) != size:
        return None
    ends = struct.unpack(f"{order}2{code}", value + (limit if len(limit) == size else value))
    return min(ends), max(ends)


def _extended(tables: dict[int, bytes], order: str) -> tuple[tuple[int, int], ...]:
    offsets, lengths = tables.get(_EXTENDED_OFFSETS, b""), tables.get(_EXTENDED_LENGTHS, b"")
    if not offsets or len(offsets) != len(lengths) or len(offsets) % 8:
        return ()
    form = f"{order}{len(offsets) // 8}Q"
    return tuple(zip(struct.unpack(form, offsets), struct.unpack(form, lengths), strict=True))
