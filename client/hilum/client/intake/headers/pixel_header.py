"""Rows, columns and depth of the pixels: whether they are of a kind that is read, and can be in the file."""

from functools import lru_cache

from hilum.client.intake.headers.header_values import code_word
from hilum.client.intake.headers.sop_classes import Supported
from hilum.client.intake.headers.tags import Tags
from hilum.client.intake.instance import MAX_EDGE, MAX_FRAMES, PixelFormat, PixelKind
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import (
    BIT_BY_BIT,
    EXPLICIT_BIG,
    JPEG_2000,
    NATIVE,
    SUPPORTED_SYNTAXES,
    UNCOMPRESSED,
)

_ITEM_BYTES = 8  # the head of an encapsulated frame (PS3.5 section A.4)
_KINDS: dict[str, PixelKind] = {"OF": "float", "OD": "double"}
_FLOAT_BITS = {"float": 32, "double": 64}
_WIDEST = 32
_WIDE = (BIT_BY_BIT | JPEG_2000) - {EXPLICIT_BIG}
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3} | dict.fromkeys(
    ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"), 3
)
_shared_format = lru_cache(maxsize=1024)(PixelFormat)  # most files of an archive are alike


def pixel_format_of(tags: Tags, kind: Supported) -> PixelFormat:
    """Rows, columns and depth, of a kind that can be read.

    Raises:
        Skip: If one is missing, or the pixels are of a kind that is not read.
    """
    get = tags.values.get
    rows, columns, bits, stored = get("Rows"), get("Columns"), get("BitsAllocated"), get("BitsStored")
    photometric = get("PhotometricInterpretation")
    frames = get("NumberOfFrames") or 1
    samples, high, signed = get("SamplesPerPixel"), get("HighBit"), get("PixelRepresentation")
    number = "whole" if tags.pixels is None else _KINDS.get(tags.pixels.vr, "whole")
    if not (isinstance(rows, int) and isinstance(columns, int) and isinstance(bits, int)):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    if number != "whole":
        stored, high, signed = bits, bits - 1, 0
    if not isinstance(stored, int):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    if not isinstance(frames, int) or frames < 1 or (frames > 1 and not kind.frames):
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    name = code_word(photometric)
    expected = _SAMPLES.get(name)
    if expected is None or (name not in _GREY and not kind.colour):
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    if not isinstance(samples, int):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    if samples != expected or not 0 < stored <= bits:
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    if not (isinstance(high, int) and isinstance(signed, int)):
        raise Skip(Reason.MISSING_ATTRIBUTE)
    if not is_read(tags.syntax, name, number, (bits, stored, high)):
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    planar = samples > 1 and get("PlanarConfiguration") == 1
    return _shared_format(
        tags.syntax, rows, columns, frames, samples, name, planar, bits, stored, high, signed == 1, number
    )


def is_read(syntax: str, photometric: str, kind: PixelKind, depth: tuple[int, int, int]) -> bool:
    """Tell whether samples of this allocated, stored and high bit come out right (PS3.5 sections 8.1 and 8.2).

    Floating point pixels are grey and never encapsulated (PS3.3 sections C.7.6.24 and C.7.6.25). JPEG and JPEG-LS hold
    no more than 16 bits, and a code stream no bits below the sample. Of 32 bits in big endian it is not agreed whether
    the words (VR OW) or the bytes within them are swapped.
    """
    bits, stored, high = depth
    if kind != "whole":
        return bits == _FLOAT_BITS[kind] and photometric in _GREY and syntax in NATIVE
    if high != stored - 1 and not (stored <= high < bits and syntax in BIT_BY_BIT):
        return False
    return bits in (8, 16) or (bits == _WIDEST and photometric != "PALETTE COLOR" and syntax in _WIDE)


def check_sizes(tags: Tags, pixels: PixelFormat) -> None:
    """Check that what the header claims fits in the file, before anything is allocated for it.

    Raises:
        Skip: If it does not.
    """
    edges = 0 < pixels.rows <= MAX_EDGE and 0 < pixels.columns <= MAX_EDGE
    if not edges or pixels.frames > MAX_FRAMES:
        raise Skip(Reason.IMPLAUSIBLE_SIZE)
    halved = pixels.photometric == "YBR_FULL_422" and tags.syntax in UNCOMPRESSED
    samples = 2 if halved else pixels.samples
    frame_bytes = pixels.rows * pixels.columns * samples * pixels.bits_allocated // 8
    element = tags.pixels
    if element is None:
        raise Skip(Reason.TRUNCATED_PIXELS)
    held_bytes = tags.size_bytes - element.offset_bytes
    syntax = SUPPORTED_SYNTAXES[tags.syntax]
    if syntax.encapsulated:  # what is deflated was inflated before its header was read
        held_bytes *= syntax.max_compression
        if pixels.frames * _ITEM_BYTES > tags.size_bytes:
            raise Skip(Reason.TRUNCATED_PIXELS)
    if frame_bytes * pixels.frames > held_bytes:
        raise Skip(Reason.TRUNCATED_PIXELS)
