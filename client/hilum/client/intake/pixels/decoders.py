"""Decoders of compressed frames, tried in the order of `intake/transfer_syntaxes.py`, the same on every machine.

The first of a syntax's decoders that does not refuse a frame decides. Each is chosen by being right on known images,
then by not dying on broken ones, then by speed (`benchmarks/codecs.py` measures it). What a decoder gives is checked
against the header and the code stream before anything uses it; where all decoders refuse, the frame is refused.
All are permissively licensed.
"""

import logging
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.client.intake.instance import PixelFormat
from hilum.client.intake.pixels.codestream import StreamInfo, j2k_info, jpeg_info
from hilum.client.intake.pixels.value_range import ValueRange
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import SUPPORTED_SYNTAXES, Coding

Decoded = npt.NDArray[Any]
"""(H, W), or (H, W, 3) with the samples of a pixel side by side."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoder:
    """One decoder of one package.

    Attributes:
        name: As the table of transfer syntaxes, docs and reports have it.
        package: The distribution that it comes from.
        decode: From a code stream to an array, (H, W) or (H, W, samples) or (samples, H, W).
    """

    name: str
    package: str
    decode: Callable[[bytes, PixelFormat], Decoded]

    @property
    def version(self) -> str:
        """The package's version here."""
        return version(self.package)


@dataclass(frozen=True)
class DecodedFrame:
    """One decoded frame.

    Attributes:
        stored: (H, W) or (H, W, 3), in the header's own dtype.
        cells: The same with the bits that are no part of a sample, where nothing was lost.
        info: What the code stream says of itself; None where it says nothing (RLE).
    """

    stored: Decoded
    cells: Decoded
    info: StreamInfo | None


def _imagecodecs_jpeg(stream: bytes, pixels: PixelFormat) -> Decoded:
    import imagecodecs

    if pixels.samples == 1:
        return _array(imagecodecs.jpeg8_decode(stream))
    # The same colour space in and out: samples come as they were stored, and are converted by what the file says.
    space = "RGB" if SUPPORTED_SYNTAXES[pixels.syntax].lossless else "YCBCR"
    return _array(imagecodecs.jpeg8_decode(stream, colorspace=space, outcolorspace=space))


def _imagecodecs_sof3(stream: bytes, _pixels: PixelFormat) -> Decoded:
    import imagecodecs

    return _array(imagecodecs.jpegsof3_decode(stream))


def _imagecodecs_jpegls(stream: bytes, _pixels: PixelFormat) -> Decoded:
    import imagecodecs

    return _array(imagecodecs.jpegls_decode(stream))


def _imagecodecs_j2k(stream: bytes, pixels: PixelFormat) -> Decoded:
    import imagecodecs

    _check_precision(stream, pixels)
    return _array(imagecodecs.jpeg2k_decode(stream, numthreads=1))


def _imagecodecs_htj2k(stream: bytes, _pixels: PixelFormat) -> Decoded:
    import imagecodecs

    if not j2k_info(stream).reversible:
        raise ValueError("samples beyond the range wrap instead of being clipped: white turns black")
    return _array(imagecodecs.htj2k_decode(stream))


def _imagecodecs_rle(stream: bytes, pixels: PixelFormat) -> Decoded:
    import imagecodecs

    if not _rle_header_holds(stream):
        raise ValueError("a segment lies outside of the stream, where the decoder would read on")
    return _planes(imagecodecs.dicomrle_decode(stream, f"<u{pixels.bits_allocated // 8}"), pixels)


def _rle_header_holds(stream: bytes) -> bool:
    """Tell whether the segments that an RLE header names follow one another within the stream (PS3.5 annex G.5)."""
    count, *offsets = struct.unpack_from("<16I", stream.ljust(_RLE_HEADER_BYTES, b"\0"))
    starts = offsets[:count]
    held = bool(starts) and _RLE_HEADER_BYTES <= starts[0] <= starts[-1] < len(stream)
    return count <= len(offsets) and held and starts == sorted(starts)


_RLE_HEADER_BYTES = 64


def _pylibjpeg_rle(stream: bytes, pixels: PixelFormat) -> Decoded:
    from rle.utils import decode_pixel_data

    size: dict[str, Any] = {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "bits_allocated": pixels.bits_allocated,
    }
    return _planes(decode_pixel_data(stream, version=2, byteorder="<", **size), pixels)


def _pylibjpeg_openjpeg(stream: bytes, pixels: PixelFormat) -> Decoded:
    from openjpeg.utils import decode_pixel_data

    _check_precision(stream, pixels)
    info = j2k_info(stream)
    bytes_each = 1 if info.bits <= 8 else 2 if info.bits <= 16 else 4  # noqa: PLR2004 - its own containers
    raw = np.frombuffer(decode_pixel_data(stream, version=2), f"<{'i' if info.signed else 'u'}{bytes_each}")
    return _shaped(raw, pixels)


def _check_precision(stream: bytes, pixels: PixelFormat) -> None:
    """Of samples of more than 24 bits OpenJPEG loses some without a word."""
    if pixels.bits_allocated > _OPENJPEG_BITS and j2k_info(stream).bits > _OPENJPEG_BITS:
        raise ValueError("more bits than are decoded right")


_OPENJPEG_BITS = 24


def _pyjpegls(stream: bytes, pixels: PixelFormat) -> Decoded:
    from jpeg_ls import decode_pixel_data

    raw, info = decode_pixel_data(stream)
    values = np.frombuffer(raw, "<u2" if info["bits_per_sample"] > 8 else "u1")  # noqa: PLR2004 - bits of a byte
    if pixels.samples > 1 and info["interleave_mode"] == 0:
        return values.reshape(pixels.samples, pixels.rows, pixels.columns)
    return _shaped(values, pixels)


def _gdcm(stream: bytes, pixels: PixelFormat) -> Decoded:
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((pixels.columns, pixels.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(pixels.photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(pixels.syntax)))
    bits = pixels.bits_allocated
    image.SetPixelFormat(gdcm.PixelFormat(pixels.samples, bits, bits, bits - 1, 0))
    values = image.GetBuffer()
    if values is None:
        raise ValueError("gdcm refuses")
    return _shaped(np.frombuffer(values.encode("utf-8", "surrogateescape"), f"<u{bits // 8}"), pixels)


def _array(decoded: Any) -> Decoded:
    return np.asarray(decoded)


def _shaped(values: Decoded, pixels: PixelFormat) -> Decoded:
    return values.reshape((pixels.rows, pixels.columns, pixels.samples)[: 2 if pixels.samples == 1 else 3])


def _planes(raw: Any, pixels: PixelFormat) -> Decoded:
    """RLE stores a sample's whole plane before the next (PS3.5 section G.2)."""
    values = np.frombuffer(raw, f"<u{pixels.bits_allocated // 8}")
    planes = values.reshape(pixels.samples, pixels.rows, pixels.columns)
    return planes[0] if pixels.samples == 1 else planes


_BY_NAME = {
    one.name: one
    for one in (
        Decoder("imagecodecs libjpeg-turbo", "imagecodecs", _imagecodecs_jpeg),
        Decoder("imagecodecs jpegsof3", "imagecodecs", _imagecodecs_sof3),
        Decoder("gdcm", "python-gdcm", _gdcm),
        Decoder("imagecodecs charls", "imagecodecs", _imagecodecs_jpegls),
        Decoder("pyjpegls", "pyjpegls", _pyjpegls),
        Decoder("imagecodecs openjpeg", "imagecodecs", _imagecodecs_j2k),
        Decoder("pylibjpeg-openjpeg", "pylibjpeg-openjpeg", _pylibjpeg_openjpeg),
        Decoder("imagecodecs openjph", "imagecodecs", _imagecodecs_htj2k),
        Decoder("pylibjpeg-rle", "pylibjpeg-rle", _pylibjpeg_rle),
        Decoder("imagecodecs dicomrle", "imagecodecs", _imagecodecs_rle),
    )
}

DECODERS: Mapping[str, tuple[Decoder, ...]] = MappingProxyType(
    {
        row.uid: tuple(_BY_NAME[name] for name in row.decoders)
        for row in SUPPORTED_SYNTAXES.values()
        if row.decoders
    }
)
"""By transfer syntax UID, for compressed pixels."""

_STREAM_INFO: Mapping[Coding, Callable[[bytes], StreamInfo]] = {
    "jpeg": jpeg_info,
    "jpeg-ls": jpeg_info,
    "jpeg-2000": j2k_info,
}
_SIGN_BY_STREAM: frozenset[Coding] = frozenset({"jpeg-ls", "jpeg-2000"})


@cache
def log_decoders() -> None:
    """Say once in a process which decoders are used, in which order and version."""
    for syntax, decoders in DECODERS.items():
        order = ", ".join(f"{one.name} ({one.package} {one.version})" for one in decoders)
        log.info("transfer syntax %s: %s", syntax, order)


def decode_frame(stream: bytes, pixels: PixelFormat) -> DecodedFrame:
    """Decode one compressed frame.

    Args:
        stream: The frame's code stream.
        pixels: What the header says of it; what comes out is checked against this.

    Returns:
        The frame in the header's dtype. Colour is as stored: nothing is converted here.

    Raises:
        Skip: If the code stream contradicts the header or is cut, or no decoder takes it.
        MemoryError: If it needs more memory than there is.
    """
    decoders = DECODERS.get(pixels.syntax)
    if decoders is None:
        raise Skip(Reason.UNSUPPORTED_SYNTAX)
    info = _checked_info(stream, pixels)
    for decoder in decoders:
        try:
            decoded = decoder.decode(stream, pixels)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException:  # noqa: S112 - a decoder in Rust panics with a BaseException; the next one is asked
            continue
        container = _contained(decoded, pixels)
        if container is not None:
            stored = _samples(container, pixels, info)
            is_exact = info is None or info.reversible
            return DecodedFrame(
                stored, _viewed(container, signed=pixels.signed) if is_exact else stored, info
            )
    raise Skip(Reason.UNDECODABLE_PIXELS)


def _checked_info(stream: bytes, pixels: PixelFormat) -> StreamInfo | None:
    """Return the code stream's header, once it agrees with the data set's."""
    read_info = _STREAM_INFO.get(SUPPORTED_SYNTAXES[pixels.syntax].coding)
    if read_info is None:
        return None
    info = read_info(stream)
    size = (info.rows, info.columns, info.samples)
    if size != (pixels.rows, pixels.columns, pixels.samples) or info.bits > pixels.bits_allocated:
        raise Skip(Reason.UNDECODABLE_PIXELS)
    return info


def _contained(decoded: Decoded, pixels: PixelFormat) -> Decoded | None:
    """Return the array in the header's shape and in cells of its width, unsigned, or None where it is something else."""
    whole = (pixels.rows, pixels.columns) + ((pixels.samples,) if pixels.samples > 1 else ())
    if decoded.shape == (pixels.samples, pixels.rows, pixels.columns) != whole and pixels.samples > 1:
        decoded = np.moveaxis(decoded, 0, -1)
    if decoded.shape != whole or decoded.dtype.kind not in "iu":
        return None
    # Wraps: two's complement in the container's width.
    return decoded.astype(np.dtype(f"u{pixels.bits_allocated // 8}"), copy=False)


def _samples(stored: Decoded, pixels: PixelFormat, info: StreamInfo | None) -> Decoded:
    """Return the samples out of their cells.

    Raises:
        Skip: If a compression that loses has spread bits that are no part of them.
    """
    if info is None:
        return in_bits(stored, pixels.bits_stored, pixels.high_bit + 1, signed=pixels.signed)
    bits = pixels.bits_stored
    if not info.reversible and info.signed in (None, pixels.signed):
        # What lies a little beyond the range overshot and is not a stray bit: cutting the bit would make white black.
        values = _with_sign(stored, pixels, info)
        if not info.signed:
            _check_overshoot(values, bits, signed=pixels.signed)
        return _clipped(values, bits, signed=pixels.signed)
    if info.signed != pixels.signed and SUPPORTED_SYNTAXES[pixels.syntax].coding in _SIGN_BY_STREAM:
        # JPEG-LS has no sign, and JPEG 2000's may not be the header's: then the narrower of the two holds it.
        bits = min(info.bits, bits)
    return in_bits(stored, bits, bits, signed=pixels.signed)


def _viewed(container: Decoded, *, signed: bool) -> Decoded:
    return container.view(container.dtype.str.replace("u", "i")) if signed else container


def _with_sign(stored: Decoded, pixels: PixelFormat, info: StreamInfo) -> Decoded:
    """Return samples with their sign, of a code stream that knows none: JPEG and JPEG-LS carry two's complement as it is.

    It is that of the stream's bits, or, where none of those has the highest set, of the sample's.
    """
    if not pixels.signed or info.signed is not None:
        return _viewed(stored, signed=pixels.signed)
    bits = min(pixels.bits_stored, info.bits) if _holds_all(stored, info.bits - 1) else info.bits
    return in_bits(stored, bits, bits, signed=True)


def _check_overshoot(values: Decoded, bits: int, *, signed: bool) -> None:
    """Check that what lies beyond the range of so many bits overshot. A stream that knows its sign has no bits above it.

    Raises:
        Skip: If it lies far outside, or nothing inside comes near to the range's end. Then bits above the sample's were
            compressed with it, and what they were before can't be told.
    """
    least, greatest = _range_of(bits, signed=signed)
    margin = (1 << bits) // _OVERSHOOT_PARTS
    extent = ValueRange(values)
    if values.size == 0 or extent.within(least, greatest):
        return
    inside = values[(values >= least) & (values <= greatest)]
    near = inside.size and (
        inside.max() >= greatest - margin if values.max() > greatest else inside.min() <= least + margin
    )
    if not near or not extent.within(least - margin, greatest + margin):
        raise Skip(Reason.UNSUPPORTED_PIXELS)


_OVERSHOOT_PARTS = 4


def _clipped(values: Decoded, bits: int, *, signed: bool) -> Decoded:
    """Bring what overshot back into the range of so many bits."""
    least, greatest = _range_of(bits, signed=signed)
    clipped: Decoded = np.clip(values, values.dtype.type(least), values.dtype.type(greatest))
    return clipped


def _range_of(bits: int, *, signed: bool) -> tuple[int, int]:
    least = -(1 << (bits - 1)) if signed else 0
    return least, least + (1 << bits) - 1


def in_bits(container: Decoded, bits: int, top: int, *, signed: bool) -> Decoded:
    """Return the sample out of its container (PS3.5 section 8.1.1): what lies in the other bits is no part of the value.

    Overlays lay in the unused bits once, and some writers leave noise there.

    Args:
        container: Unsigned whole numbers.
        bits: Bits of the sample, BitsStored.
        top: Bits up to and with the sample's highest, HighBit + 1.
        signed: Whether the sample's highest bit is a sign.
    """
    width = 8 * container.dtype.itemsize
    values = _viewed(container, signed=signed)
    if bits == width or (bits == top and _holds_all(values, bits)):
        return values
    sample: Decoded = np.right_shift(np.left_shift(values, width - top), width - bits)
    return sample


def _holds_all(values: Decoded, bits: int) -> bool:
    """Tell whether no value has a bit beyond these: a look is cheaper than two shifts."""
    return values.size > 0 and ValueRange(values).within(*_range_of(bits, signed=values.dtype.kind == "i"))
