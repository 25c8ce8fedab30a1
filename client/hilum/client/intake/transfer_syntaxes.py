"""Every transfer syntax whose pixels are read, a row each; all other sets of syntaxes are views on these rows.

Adding one takes three edits: its row here, in the place that a receiver gives it; its decoder in
`pixels/decoders.py`, unless one there reads it; and its encoder in tests/support/pixel_files.py, with which the tests
of decoders, sizes and headers try it. Then `python tests/support/reference_tables.py` writes the table of
docs/reference/dicom.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
RLE = "1.2.840.10008.1.2.5"

Coding = Literal["none", "rle", "jpeg", "jpeg-ls", "jpeg-2000"]
"""How pixels are compressed. HTJ2K is JPEG 2000 with other entropy coding, and counts as such."""


@dataclass(frozen=True)
class TransferSyntax:
    """One way to write a data set and its pixels (PS3.5 chapter 10 and annex A).

    Attributes:
        uid: As in PS3.6 table A-1.
        name: Likewise.
        coding: Of the pixels.
        lossless: Whether samples always come back as they were.
        decoders: Of compressed pixels: names in `pixels/decoders.py`. The first that does not refuse a frame decides.
        max_compression: The most bytes that one byte of the file plausibly becomes.
        implicit: Whether no value representations are written.
        big_endian: Whether the most significant byte comes first.
        deflated: Whether the data set is deflated as a whole.
        encapsulated: Whether each frame's pixels are one or more items (section A.4).
    """

    uid: str
    name: str
    coding: Coding = "none"
    lossless: bool = True
    decoders: tuple[str, ...] = ()
    max_compression: int = 1
    implicit: bool = False
    big_endian: bool = False
    deflated: bool = False
    encapsulated: bool = False


# RLE codes at best 128 bytes in two (annex G). A block of 64 samples takes at least two bits in lossy JPEG, a sample one
# bit in lossless JPEG. The others have run modes or empty code blocks: an even image shrinks nearly without bound, so
# their limit only keeps a file of a few hundred bytes from claiming many gigabytes. Real images deflate to a half or a
# fifth; a data set that inflates by far more is a bomb or an empty image.
_RLE, _JPEG, _LOSSLESS_JPEG, _RUNS, _DEFLATE = 64, 512, 64, 100_000, 200


def _compressed(
    end: int, name: str, coding: Coding, decoders: tuple[str, ...], most: int, *, lossless: bool = True
) -> TransferSyntax:
    """Return a row of the JPEG family: encapsulated, its header explicit little endian."""
    uid = f"1.2.840.10008.1.2.4.{end}"
    return TransferSyntax(uid, name, coding, lossless, decoders, most, encapsulated=True)


_LOSSLESS_JPEG_DECODERS = ("imagecodecs libjpeg-turbo", "imagecodecs jpegsof3", "gdcm")
_JPEG_LS_DECODERS = ("imagecodecs charls", "pyjpegls")
_JPEG_2000_DECODERS = ("imagecodecs openjpeg", "pylibjpeg-openjpeg")
_HTJ2K_DECODERS = ("imagecodecs openjph", "imagecodecs openjpeg")

_ROWS = (
    TransferSyntax(EXPLICIT_LITTLE, "Explicit VR Little Endian"),
    TransferSyntax(IMPLICIT_LITTLE, "Implicit VR Little Endian", implicit=True),
    TransferSyntax(
        ENCAPSULATED_UNCOMPRESSED, "Encapsulated Uncompressed Explicit VR Little Endian", encapsulated=True
    ),
    TransferSyntax(
        RLE,
        "RLE Lossless",
        "rle",
        decoders=("pylibjpeg-rle", "imagecodecs dicomrle"),
        max_compression=_RLE,
        encapsulated=True,
    ),
    _compressed(80, "JPEG-LS Lossless Image Compression", "jpeg-ls", _JPEG_LS_DECODERS, _RUNS),
    _compressed(90, "JPEG 2000 Image Compression (Lossless Only)", "jpeg-2000", _JPEG_2000_DECODERS, _RUNS),
    _compressed(
        70,
        "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])",
        "jpeg",
        _LOSSLESS_JPEG_DECODERS,
        _LOSSLESS_JPEG,
    ),
    _compressed(
        57,
        "JPEG Lossless, Non-Hierarchical (Process 14)",
        "jpeg",
        _LOSSLESS_JPEG_DECODERS,
        _LOSSLESS_JPEG,
    ),
    _compressed(
        201,
        "High-Throughput JPEG 2000 Image Compression (Lossless Only)",
        "jpeg-2000",
        _HTJ2K_DECODERS,
        _RUNS,
    ),
    _compressed(
        202,
        "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)",
        "jpeg-2000",
        _HTJ2K_DECODERS,
        _RUNS,
    ),
    TransferSyntax(EXPLICIT_BIG, "Explicit VR Big Endian", big_endian=True),
    TransferSyntax(DEFLATED, "Deflated Explicit VR Little Endian", max_compression=_DEFLATE, deflated=True),
    _compressed(
        81,
        "JPEG-LS Lossy (Near-Lossless) Image Compression",
        "jpeg-ls",
        _JPEG_LS_DECODERS,
        _RUNS,
        lossless=False,
    ),
    _compressed(91, "JPEG 2000 Image Compression", "jpeg-2000", _JPEG_2000_DECODERS, _RUNS, lossless=False),
    _compressed(
        203,
        "High-Throughput JPEG 2000 Image Compression",
        "jpeg-2000",
        _JPEG_2000_DECODERS,  # openjph wraps where it loses
        _RUNS,
        lossless=False,
    ),
    _compressed(
        51,
        "JPEG Extended (Process 2 and 4)",
        "jpeg",
        ("imagecodecs libjpeg-turbo",),  # gdcm has no 12 bit
        _JPEG,
        lossless=False,
    ),
    _compressed(
        50,
        "JPEG Baseline (Process 1)",
        "jpeg",
        ("imagecodecs libjpeg-turbo", "gdcm"),
        _JPEG,
        lossless=False,
    ),
)

SUPPORTED_SYNTAXES: Mapping[str, TransferSyntax] = MappingProxyType({row.uid: row for row in _ROWS})
"""By UID, the better first: a sender that offers several gives lossless before lossy. Video and deflated frames are not read."""


def _where(holds: Callable[[TransferSyntax], bool]) -> frozenset[str]:
    return frozenset(row.uid for row in _ROWS if holds(row))


NATIVE = _where(lambda row: not row.encapsulated)
"""Those in native format (PS3.5 section 8.2): the pixels are one value, though the data set may be deflated."""

UNCOMPRESSED = _where(lambda row: row.coding == "none")
"""Those whose frames need no decoder, encapsulated or not."""

BIT_BY_BIT = _where(lambda row: row.coding in {"none", "rle"})
"""Those that keep every allocated bit where it was."""

JPEG_2000 = _where(lambda row: row.coding == "jpeg-2000")
"""The only code streams of more than 16 bits."""

EXPLICIT_LITTLE_HEADERS = _where(lambda row: not (row.implicit or row.big_endian or row.deflated))
"""Those of explicit little endian headers that lie in the file as they are."""
