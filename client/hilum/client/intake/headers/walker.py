"""The fast way to a header: one read, one loop over the top-level tags, and no value that is not wanted.

The walker reads explicit and implicit little endian (PS3.5 sections 7.1 and A.1 to A.4) and only where it is certain:
it gives the values that pydicom would give, or None, which means "ask pydicom". It is pure arithmetic over bytes, so
no input makes it recurse, inflate or allocate more than its window.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError

from hilum.client.intake.headers.element_headers import (
    LONG,
    LONG_HEAD_BYTES,
    META,
    PIXEL_TAGS,
    SIGNED_OR_NOT,
    UNDEFINED,
    Encoding,
    EndOfWindow,
    encoding_of,
    u32,
    wanted_of,
)
from hilum.client.intake.headers.header_templates import Wanted
from hilum.client.intake.headers.injections import injections_of
from hilum.client.intake.headers.parsing import UncertainValue, check_sets
from hilum.client.intake.headers.pet_tags import INJECTIONS, NAME_OF_INJECTIONS, PET, drop_other_makers
from hilum.client.intake.headers.sequences import is_sequence, learn, sequence_end
from hilum.client.intake.headers.tags import IMPLICIT_PIXEL_VRS, NOTED, PixelElement, Tags, Value
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import EXPLICIT_LITTLE_HEADERS, IMPLICIT_LITTLE

WINDOW_BYTES = 16_384
"""How much one read takes: nearly every header fits."""

_MAX_READS = 256
_SEQUENCE_BYTES = 1 << 20
_PREAMBLE_BYTES = 132
_META_GROUP = 0x0002
_LAST_OF_META = 0x0002_FFFF
_PIXEL_VRS = frozenset({"OB", "OW", "OF", "OD"})


def walk_tags(path: Path | str) -> Tags | None:
    """Take the wanted tags of one file.

    Returns:
        The tags, or None where only pydicom can tell.

    Raises:
        Skip: If the file can't be read or is not a DICOM file.
    """
    try:
        # A pipe that has taken the file's place since it was looked at must not be waited for.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    try:
        data = os.read(handle, WINDOW_BYTES)
        size = len(data) if len(data) < WINDOW_BYTES else os.lseek(handle, 0, os.SEEK_END)
        if data[128:132] != b"DICM":
            if data[:2] in (b"\x08\x00", b"\x02\x00", b"\x00\x08"):
                return None
            raise Skip(Reason.NOT_DICOM)
        return _walk(handle, data, size)
    except (UncertainValue, ValueError):
        return None
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    finally:
        os.close(handle)


def _walk(handle: int, data: bytes, size: int) -> Tags | None:
    start, syntax, media_class, writer = _meta(data)
    explicit = syntax in EXPLICIT_LITTLE_HEADERS
    if not explicit and syntax != IMPLICIT_LITTLE:
        return None
    # The other byte order, or no such group; of explicit VR the first head tells.
    if data[start + 1 : start + 2] != b"\0" or (not explicit and _looks_explicit(data, start)):
        raise UncertainValue
    encoding = encoding_of(explicit=explicit, writer=writer, media_class=media_class)
    values, pixels = _top_level(_Window(handle, data, 0, size), start, encoding)
    check_sets(values.get("SpecificCharacterSet", ""))
    if (values.get("SOPClassUID") == PET) is not encoding.of_pet:
        raise UncertainValue  # inside the file says otherwise than outside what it is, and so what is wanted
    if encoding.of_pet:
        drop_other_makers(values)
    return Tags(values, syntax, media_class, size, pixels)


def _looks_explicit(data: bytes, p: int) -> bool:
    vr = data[p + 4 : p + 6]
    return vr.isalpha() and vr.isupper()


def _meta(data: bytes) -> tuple[int, str, str, str]:
    """Return the file meta group (PS3.10 section 7.1): where the data set starts, the transfer syntax, the SOP class, the writer."""
    p, last, heads = _PREAMBLE_BYTES, 0, META
    texts: dict[str, Value] = {"MediaStorageSOPClassUID": "", "ImplementationClassUID": ""}
    end = len(data) - LONG_HEAD_BYTES
    while p <= end:
        if data[p] != _META_GROUP or data[p + 1]:
            syntax, media_class = texts.get("TransferSyntaxUID"), texts["MediaStorageSOPClassUID"]
            if not isinstance(syntax, str) or not isinstance(media_class, str):
                break
            return p, syntax, media_class, str(texts["ImplementationClassUID"])
        step, special = heads[data[p : p + 8]]
        if special is None:
            p += step
        elif step == 0:
            p += LONG_HEAD_BYTES + u32(data, p + 8)[0]
        else:
            tag, keyword, parse = special
            if tag <= last:
                break
            last, q, p = tag, p + 8, p + step
            texts[keyword] = parse(data[q:p])
    raise UncertainValue


@dataclass(slots=True)
class _Window:
    """The part of a file that is in memory; it only moves forward.

    Attributes:
        base: Where `data` starts in the file.
        reads: How many more times the file may be read.
    """

    handle: int
    data: bytes
    base: int
    size: int
    reads: int = _MAX_READS

    def move(self, p: int, size_bytes: int = WINDOW_BYTES) -> bytes:
        """Read on from the relative position `p`."""
        self.reads -= 1
        if self.reads < 0:
            raise UncertainValue
        self.base += p
        self.data = os.pread(self.handle, size_bytes, self.base)
        return self.data

    def holding(self, q: int, p: int) -> tuple[bytes, int, int]:
        """Return the data with the bytes from `q` to `p` in it, and where they are then."""
        if p <= len(self.data):
            return self.data, q, p
        data = self.move(q)
        if p - q > len(data):
            raise UncertainValue
        return data, 0, p - q

    def ended(self, p: int) -> bool:
        """Tell whether the file ends exactly at the relative position `p`.

        Raises:
            UncertainValue: If it ends before, or so soon after that no element fits.
        """
        left = self.size - self.base - p
        if left < 0 or 0 < left < LONG_HEAD_BYTES:
            raise UncertainValue
        return left == 0


def _top_level(  # noqa: C901, PLR0912 - one loop: a call for each element would double the time it takes
    window: _Window, p: int, encoding: Encoding
) -> tuple[dict[str, Value], PixelElement | None]:
    """Return the wanted values, and the pixel data if there is any.

    Wanted tags must ascend, or one may stand twice. The order of the others makes no difference.
    """
    values: dict[str, Value] = {}
    data, heads, plain, last = window.data, encoding.heads, encoding.heads.plain, _LAST_OF_META
    known, hopeless = encoding.templates.known, encoding.templates.hopeless
    end = len(data)
    while True:
        key = data[p : p + 8]
        run = known.get(key)
        if run is not None and p + run.size_bytes <= end and run.heads_at(data, p) == run.heads:
            if run.taken:
                if run.first <= last:
                    raise UncertainValue
                last = run.last
                for (keyword, parse), raw in zip(run.taken, run.values_at(data, p), strict=False):
                    values[keyword] = parse(raw)
            p += run.size_bytes
            continue
        if key not in hopeless and learn(data, p, key, encoding):
            continue
        try:
            while step := plain[key]:
                p += step
                key = data[p : p + 8]
        except KeyError:
            pass  # the end of the window, or a head that was not met before
        try:
            step, wanted = heads[key]
        except EndOfWindow:
            if window.ended(p):
                return values, None
            data, p = window.move(p), 0
            end = len(data)
            continue
        if wanted is None:
            p += step
        elif step:
            tag, keyword, parse = wanted
            if tag <= last:
                raise UncertainValue
            last, q, p = tag, p + 8, p + step
            if p > end:
                data, q, p = window.holding(q, p)
                end = len(data)
            values[keyword] = parse(data[q:p])
        elif wanted is LONG and p + 12 <= end and (length := u32(data, p + 8)[0]) != UNDEFINED:
            p += 12 + length
        else:
            p, pixels = _special(window, p, encoding, values)
            if pixels is not None:
                return values, pixels
            data = window.data
            end = len(data)


def _special(
    window: _Window, p: int, encoding: Encoding, values: dict[str, Value]
) -> tuple[int, PixelElement | None]:
    """Take an element that is not an ordinary one: note it, skip it, or find that it is the pixel data."""
    if p + LONG_HEAD_BYTES > len(window.data):
        window.move(p)
        p = 0
    tag, vr, q, length = encoding.whole_head(window.data, p)
    if tag in PIXEL_TAGS:
        return q, _pixel_element(vr or IMPLICIT_PIXEL_VRS[tag], window.base + q, length)
    if tag == INJECTIONS and encoding.of_pet:
        if vr not in ("SQ", ""):
            raise UncertainValue
        return _injections(window, q, length, encoding, values), None
    if tag in NOTED:
        if NOTED[tag] in values:
            raise UncertainValue
        values[NOTED[tag]] = True
    if length == UNDEFINED:
        if vr not in ("SQ", "") or (vr == "" and not is_sequence(tag, window.data, q)):
            raise UncertainValue
        return _past_sequence(window, q, encoding), None
    p = q + length
    if tag in SIGNED_OR_NOT:
        data, q, p = window.holding(q, p)
        tag, keyword, parse = _signed_or_not(tag, values, length)
        values[keyword] = parse(data[q:p])
    return p, None


def _injections(window: _Window, q: int, length: int, encoding: Encoding, values: dict[str, Value]) -> int:
    """Take what stands in the sequence of injections, and return where it ends."""
    if NAME_OF_INJECTIONS in values:
        raise UncertainValue
    if length == UNDEFINED:
        start = window.base + q
        p = _past_sequence(window, q, encoding)
        data, q = window.data, start - window.base
    else:
        data, q, p = window.holding(q, q + length)
    try:
        values |= injections_of(data[q:p], encoding)
    except (EndOfWindow, StructError, KeyError):  # KeyError: a value representation that is none
        raise UncertainValue from None
    return p


def _pixel_element(vr: str, offset: int, length: int) -> PixelElement:
    if vr not in _PIXEL_VRS:
        raise UncertainValue
    return PixelElement(vr, offset, None if length == UNDEFINED else length)


def _signed_or_not(tag: int, values: dict[str, Value], length: int) -> Wanted:
    """Return the VR that pixel representation chooses where it is implicit (PS3.5 annex A.1)."""
    representation = values.get("PixelRepresentation")
    wanted = wanted_of(tag, "SS" if representation else "US", length)
    if representation not in (0, 1) or wanted is None or wanted[1] in values:
        raise UncertainValue
    return wanted


def _past_sequence(window: _Window, p: int, encoding: Encoding) -> int:
    """Return where a sequence of undefined length ends; the window is moved if it does not hold all of it."""
    try:
        return sequence_end(window.data, p, encoding)
    except (EndOfWindow, StructError):
        data = window.move(p, _SEQUENCE_BYTES)
    try:
        return sequence_end(data, 0, encoding)
    except (EndOfWindow, StructError):
        raise UncertainValue from None
