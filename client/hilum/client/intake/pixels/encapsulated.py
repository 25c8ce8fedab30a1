"""One frame's bytes out of a file, and no more than that (PS3.5 sections 8.2 and A.4)."""

import struct
from dataclasses import dataclass

from hilum.client.intake.pixels.layout import ByteSource, PixelElement
from hilum.client.intake.reasons import Reason, Skip

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_STREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")  # JPEG and JPEG-LS, J2K, JP2


@dataclass(frozen=True)
class Fragment:
    """One item of encapsulated pixel data.

    Attributes:
        offset: Of its value, in the source.
        length: Bytes of its value.
    """

    offset: int
    length: int


def frame_fragments(source: ByteSource, pixels: PixelElement, frames: int) -> list[tuple[Fragment, ...]]:
    """Return which fragments make which frame.

    One fragment a frame is taken as such, whatever the offset table says; else the extended or the basic offset table
    is asked; where both are empty, a fragment that begins a code stream begins a frame.

    Raises:
        Skip: If an item runs beyond the file, or the fragments don't make as many frames as the header claims.
    """
    table, fragments = _items(source, pixels.offset)
    if not fragments:
        raise Skip(Reason.TRUNCATED_PIXELS)
    if frames == 1:
        return [tuple(fragments)]
    if len(fragments) == frames:
        return [(fragment,) for fragment in fragments]
    if len(fragments) < frames:
        raise Skip(Reason.TRUNCATED_PIXELS)
    first = fragments[0].offset - 8
    if len(pixels.extended) == frames:
        starts = {first + offset for offset, _length in pixels.extended}
    elif len(table) == frames:
        starts = {first + offset for offset in table}
    else:
        starts = {
            one.offset - 8 for one in fragments if source.read_at(one.offset, 12).startswith(_STREAM_STARTS)
        }
    return _grouped(fragments, starts, frames)


def read_fragments(source: ByteSource, fragments: tuple[Fragment, ...]) -> bytes:
    """Return the code stream of one frame."""
    if len(fragments) == 1:
        return source.read_at(fragments[0].offset, fragments[0].length)
    return b"".join(source.read_at(one.offset, one.length) for one in fragments)


def _items(source: ByteSource, position: int) -> tuple[list[int], list[Fragment]]:
    """Return the basic offset table and the fragments behind it."""
    fragments: list[Fragment] = []
    table: list[int] | None = None
    while True:
        head = source.read_at(position, 8)
        if head[:4] == _SEQUENCE_END:
            break
        if len(head) < 8 or head[:4] != _ITEM:  # noqa: PLR2004 - tag and length
            raise Skip(Reason.TRUNCATED_PIXELS)
        length = struct.unpack_from("<I", head, 4)[0]
        position += 8
        if position + length > source.size:
            raise Skip(Reason.TRUNCATED_PIXELS)
        if table is None:
            count = length // 4
            table = list(struct.unpack(f"<{count}I", source.read_at(position, 4 * count)))
        else:
            fragments.append(Fragment(position, length))
        position += length
    return table or [], fragments


def _grouped(fragments: list[Fragment], starts: set[int], frames: int) -> list[tuple[Fragment, ...]]:
    grouped: list[list[Fragment]] = []
    for fragment in fragments:
        if fragment.offset - 8 in starts:
            grouped.append([])
        elif not grouped:
            raise Skip(Reason.UNDECODABLE_PIXELS)
        grouped[-1].append(fragment)
    if len(grouped) != frames:
        raise Skip(Reason.TRUNCATED_PIXELS)
    return [tuple(group) for group in grouped]
