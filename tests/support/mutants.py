"""Broken and hostile files, made from good ones by a seed: the same seed gives the same bytes, for ever.

Each mutation is what an archive or an attacker does: bits flip, files end early, lengths and sizes lie, sequences nest,
two files run into each other, a deflated data set is a bomb.
"""

import random
import struct
import zlib
from collections.abc import Callable

Mutation = Callable[[random.Random, bytearray, bytes], bytes]

_MAX_HEADER = 4096
_SIZES = {  # of Rows, Columns, SamplesPerPixel, BitsAllocated, BitsStored, HighBit, PixelRepresentation
    0x0010: 2, 0x0011: 2, 0x0002: 2, 0x0100: 2, 0x0101: 2, 0x0102: 2, 0x0103: 2
}  # fmt: skip


def mutant(seed: int, content: bytes, other: bytes) -> tuple[str, bytes]:
    """One mutant of a file.

    Args:
        seed: Names the mutant; any number.
        content: The good file.
        other: Another, for splices.

    Returns:
        The mutation's name and the bytes.
    """
    rng = random.Random(seed)
    name = rng.choice(sorted(MUTATIONS))
    return name, MUTATIONS[name](rng, bytearray(content), other)


def flip_bits(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    for _ in range(rng.choice([1, 2, 8, 64])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def flip_header_bits(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    for _ in range(rng.choice([1, 2, 8])):
        content[rng.randrange(min(len(content), _MAX_HEADER))] ^= 1 << rng.randrange(8)
    return bytes(content)


def flip_stream_head_bits(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    """In the first bytes of a code stream, where decoders learn what to allocate."""
    start = _pixels(content)
    for _ in range(rng.choice([1, 2, 4])):
        content[min(start + rng.randrange(200), len(content) - 1)] ^= 1 << rng.randrange(8)
    return bytes(content)


def overwrite(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    start = rng.randrange(len(content))
    length = rng.choice([1, 4, 16, 256])
    filler = rng.choice([b"\0", b"\xff", b"\x7f", rng.randbytes(1)])
    content[start : start + length] = filler * min(length, len(content) - start)
    return bytes(content)


def truncate(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    return bytes(content[: rng.randrange(len(content))])


def remove(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    start = rng.randrange(len(content))
    del content[start : start + rng.choice([1, 2, 7, 100, 1000])]
    return bytes(content)


def forge_length(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    """Four bytes that look like a length, somewhere in the header or at the pixels."""
    place = rng.choice([rng.randrange(132, max(133, min(len(content), _MAX_HEADER))), _pixels(content) + 4])
    lie = rng.choice([0, 1, 0x7FFF_FFFF, 0xFFFF_FFFE, 0xFFFF_FFFF, rng.randrange(1 << 32)])
    content[place : place + 4] = struct.pack("<I", lie)
    return bytes(content)


def forge_size(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    """Rows, columns, bits or signedness; both the header's and, in the stream, the decoder's."""
    element = rng.choice(sorted(_SIZES))
    at = content.find(struct.pack("<HH", 0x0028, element))
    if at >= 0:
        lie = rng.choice([0, 1, 3, 8, 12, 16, 32, 64, 0x7FFF, 0xFFFF])
        content[at + 8 : at + 10] = struct.pack("<H", lie)
    for marker in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc3", b"\xff\xf7", b"\xff\x51"):
        found = content.find(marker, _pixels(content))
        if found >= 0 and rng.random() < 0.5:
            content[found + 5 : found + 9] = rng.randbytes(4)
    return bytes(content)


def forge_frames(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    at = content.find(struct.pack("<HH", 0x0028, 0x0008))
    if at < 0:
        return forge_size(rng, content, b"")
    lie = rng.choice([b"0 ", b"-1", b"99", b"9 "])
    content[at + 8 : at + 10] = lie
    return bytes(content)


def nest(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    """Sequences inside sequences, before the pixels."""
    depth = rng.choice([30, 300, 3000])
    opened = (b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth
    closed = (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * rng.choice([0, depth // 2, depth])
    return bytes(content[: _meta_end(content)]) + opened + closed + bytes(content[_meta_end(content) :])


def splice(rng: random.Random, content: bytearray, other: bytes) -> bytes:
    return bytes(content[: rng.randrange(len(content))]) + other[rng.randrange(len(other)) :]


def swap_pixels(_rng: random.Random, content: bytearray, other: bytes) -> bytes:
    """The header of one file over the pixels of another, as a broken copy leaves them."""
    return bytes(content[: _pixels(content)]) + other[_pixels(other) :]


def bomb(rng: random.Random, content: bytearray, _other: bytes) -> bytes:
    """The rest of the data set deflated into far less than it becomes."""
    size_bytes = rng.choice([1 << 20, 1 << 26])
    engine = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return bytes(content[: _meta_end(content)]) + engine.compress(bytes(size_bytes)) + engine.flush()


def _meta_end(content: bytes | bytearray) -> int:
    if content[128:132] != b"DICM" or len(content) < 144:
        return 0
    return min(144 + int.from_bytes(content[140:144], "little"), len(content))


def _pixels(content: bytes | bytearray) -> int:
    return max(content.rfind(b"\xe0\x7f\x10\x00"), content.rfind(b"\x7f\xe0\x00\x10"), 0)


MUTATIONS: dict[str, Mutation] = {
    one.__name__: one
    for one in (
        flip_bits,
        flip_header_bits,
        flip_stream_head_bits,
        overwrite,
        truncate,
        remove,
        forge_length,
        forge_size,
        forge_frames,
        nest,
        splice,
        swap_pixels,
        bomb,
    )
}
