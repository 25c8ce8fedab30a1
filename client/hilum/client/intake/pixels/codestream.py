"""What a compressed frame says of itself, read before a decoder allocates anything by it.

JPEG and JPEG-LS: ISO 10918-1 annex B, ISO 14495-1 annex C. JPEG 2000 and HTJ2K: ISO 15444-1 annex A.
"""

import struct
from dataclasses import dataclass
from typing import Literal

from hilum.client.intake.reasons import Reason, Skip

_SOC_SIZ = b"\xff\x4f\xff\x51"
_EOI = b"\xff\xd9"
_PADDING = b"\0\xff"  # to an even length
_COD = b"\xff\x52"
_SOT, _SOD, _EOC, _SOS = 0xFF90, 0xFF93, 0xFFD9, 0xFFDA
_FRAME_MARKERS = frozenset((*range(0xFFC0, 0xFFD0), 0xFFF7)) - {0xFFC4, 0xFFC8, 0xFFCC}  # not DHT, JPG, DAC
_SOF55 = 0xFFF7  # JPEG-LS
_LOSSLESS_FRAMES = frozenset({0xFFC3, 0xFFC7, 0xFFCB, 0xFFCF, _SOF55})
_LONE_MARKERS = range(0xFFD0, 0xFFDA)  # RST, SOI and EOI (ISO 10918-1 table B.1)
_APP0, _APP14 = 0xFFE0, 0xFFEE
_RGB_NAMES = {(82, 71, 66), (114, 103, 98)}


@dataclass(frozen=True)
class StreamInfo:
    """The code stream's own header.

    Attributes:
        bits: Precision of a sample.
        signed: Only JPEG 2000 knows; None elsewhere.
        reversible: The stream loses nothing: JPEG 2000 by the 5-3 wavelet, JPEG-LS with NEAR 0, JPEG by prediction.
        colour: What three samples are, where a marker says so.
    """

    rows: int
    columns: int
    samples: int
    bits: int
    signed: bool | None
    colour: Literal["RGB", "YBR"] | None = None
    reversible: bool = True


def jpeg_info(stream: bytes) -> StreamInfo:
    """Of a JPEG or JPEG-LS stream that has its end.

    Decoders fill what is missing of a stream that was cut, so its end marker is asked for here.

    Raises:
        Skip: If it is no such stream, or has no end.
    """
    if stream[:2] != b"\xff\xd8":
        raise Skip(Reason.UNDECODABLE_PIXELS)
    position, frame, apps, reversible, is_ls = 2, b"", {}, True, False
    while position + 4 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, position)
        if marker == 0xFFFF:  # noqa: PLR2004 - fill bytes may stand before a marker
            position += 1
            continue
        # A marker without a segment has no place among the tables: there it makes a decoder abort.
        if marker < 0xFF02 or marker in _LONE_MARKERS or length < 2:  # noqa: PLR2004 - or none, or no whole length
            raise Skip(Reason.UNDECODABLE_PIXELS)
        segment = stream[position + 4 : position + 2 + length]
        if marker in _FRAME_MARKERS:
            frame, reversible, is_ls = segment, marker in _LOSSLESS_FRAMES, marker == _SOF55
        elif marker in {_APP0, _APP14}:
            apps[marker] = segment
        elif marker == _SOS:
            if stream.rfind(_EOI, position) < 0:
                raise Skip(Reason.TRUNCATED_PIXELS)
            # NEAR follows the components of a scan (ISO 14495-1 section C.2.3); of JPEG it is the predictor.
            near = segment[1 + 2 * segment[0] :][:1] if is_ls and segment else b"\0"
            reversible = reversible and near == b"\0"
            break
        position += 2 + length
    else:
        raise Skip(Reason.TRUNCATED_PIXELS)
    if len(frame) < 6 or len(frame) < 6 + 3 * frame[5]:  # noqa: PLR2004 - as the standard lays it out
        raise Skip(Reason.UNDECODABLE_PIXELS)
    bits, rows, columns, samples = struct.unpack_from(">BHHB", frame)
    names = tuple(frame[6 : 6 + 3 * samples : 3])
    return StreamInfo(rows, columns, samples, bits, None, _colour(names, apps), reversible)


def _colour(names: tuple[int, ...], apps: dict[int, bytes]) -> Literal["RGB", "YBR"] | None:
    if names in _RGB_NAMES:
        return "RGB"
    adobe = apps.get(_APP14, b"")
    if adobe[:5] == b"Adobe" and len(adobe) >= 12:  # noqa: PLR2004 - up to the transform flag
        return "YBR" if adobe[11] else "RGB"
    return "YBR" if apps.get(_APP0, b"")[:4] == b"JFIF" else None


def j2k_info(stream: bytes) -> StreamInfo:
    """Of a JPEG 2000 or HTJ2K code stream whose tile parts are all there, bare or in a JP2 box.

    Raises:
        Skip: If it is no such stream, its samples differ in kind, or a tile part is cut.
    """
    start = stream.find(_SOC_SIZ, 0, 4096)
    if start < 0 or len(stream) < start + 44:
        raise Skip(Reason.UNDECODABLE_PIXELS)
    right, bottom, left, top, *tiles = struct.unpack_from(">8I", stream, start + 8)
    samples = struct.unpack_from(">H", stream, start + 40)[0]
    components = stream[start + 42 : start + 42 + 3 * samples]
    alike = len(components) == 3 * samples and components == components[:3] * samples
    if not samples or not alike or components[1:3] != b"\x01\x01" or right <= left or bottom <= top:
        raise Skip(Reason.UNDECODABLE_PIXELS)
    _check_tiles((left, top), *tiles)
    _check_tile_parts(stream, start + 2)
    signed = bool(components[0] & 0x80)
    style = stream.find(_COD, start)
    reversible = stream[style + 13 : style + 14] == b"\x01"  # SPcod, table A.20: 1 is 5-3 reversible
    bits = (components[0] & 0x7F) + 1
    return StreamInfo(bottom - top, right - left, samples, bits, signed, reversible=reversible)


def _check_tiles(first: tuple[int, int], width: int, height: int, left: int, top: int) -> None:
    """Check that the first tile holds the image's first sample (ISO/IEC 15444-1 section B.3). OpenJPH divides by its width."""
    across, down = left <= first[0] < left + width, top <= first[1] < top + height
    if not (across and down):
        raise Skip(Reason.UNDECODABLE_PIXELS)


def _check_tile_parts(stream: bytes, position: int) -> None:
    """Follow the tile parts' stated lengths to the end of the stream."""
    tile_parts = 0
    while position + 4 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, position)
        if marker == _EOC:
            return
        if marker == _SOT:
            if position + 10 > len(stream):
                break
            part_bytes = struct.unpack_from(">I", stream, position + 6)[0]
            tile_parts += 1
            if part_bytes == 0:  # the last one, up to the end of the stream
                if stream.rfind(_EOI, position) < 0:
                    break
                return
            position += max(part_bytes, 12)
        elif tile_parts and not stream[position:].strip(_PADDING):
            return  # no end marker, and padding
        elif tile_parts or marker < 0xFF00 or length < 2:  # noqa: PLR2004 - not a main header's marker
            raise Skip(Reason.UNDECODABLE_PIXELS)
        else:
            position += 2 + length
    # Some writers leave the end marker out; then the last tile part must end where the stream does, padding aside.
    rest = stream[position:]
    if not tile_parts or position > len(stream) or not (rest.startswith(_EOI) or not rest.strip(_PADDING)):
        raise Skip(Reason.TRUNCATED_PIXELS)
