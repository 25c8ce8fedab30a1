"""How a transfer syntax encodes the header, and how far it can shrink pixels (PS3.5 chapter 10 and annex A)."""

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_NATIVE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

RLE = "1.2.840.10008.1.2.5"

NATIVE = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE_NATIVE, EXPLICIT_BIG})
"""Pixels lie in the file as they are."""

# RLE codes at best 128 bytes in two (annex G). A block of 64 samples takes at least two bits in lossy JPEG, a sample one
# bit in lossless JPEG. The others have run modes or empty code blocks: an even image shrinks nearly without bound, so
# their limit only keeps a file of a few hundred bytes from claiming many gigabytes.
_RUNS = 100_000
MAX_COMPRESSION: dict[str, int] = {
    "1.2.840.10008.1.2.1.98": 1,
    "1.2.840.10008.1.2.5": 64,
    "1.2.840.10008.1.2.4.50": 512,
    "1.2.840.10008.1.2.4.51": 512,
    "1.2.840.10008.1.2.4.57": 64,
    "1.2.840.10008.1.2.4.70": 64,
    "1.2.840.10008.1.2.4.80": _RUNS,
    "1.2.840.10008.1.2.4.81": _RUNS,
    "1.2.840.10008.1.2.4.90": _RUNS,
    "1.2.840.10008.1.2.4.91": _RUNS,
    "1.2.840.10008.1.2.4.201": _RUNS,
    "1.2.840.10008.1.2.4.202": _RUNS,
    "1.2.840.10008.1.2.4.203": _RUNS,
}
"""The encapsulated syntaxes that are read: uncompressed, RLE, JPEG, JPEG-LS, JPEG 2000 and HTJ2K, with decoded to encoded bytes."""

BIT_BY_BIT = NATIVE | {DEFLATED, "1.2.840.10008.1.2.1.98", RLE}
"""The syntaxes that keep every allocated bit where it was: uncompressed ones and RLE."""

JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in (90, 91, 201, 202, 203))
"""JPEG 2000 and HTJ2K: the only code streams of more than 16 bits."""

SUPPORTED_SYNTAXES = NATIVE | {DEFLATED} | MAX_COMPRESSION.keys()
"""Every syntax whose pixels are read. Video and deflated frames are not."""

EXPLICIT_LITTLE = frozenset({EXPLICIT_LITTLE_NATIVE, *MAX_COMPRESSION})
"""The syntaxes of explicit little endian headers that are read."""
