"""The fast way to a header: one read, one loop over the top-level tags, and no value that is not wanted.

The walker reads explicit and implicit little endian (PS3.5 sections 7.1 and A.1 to A.4) and only where it is certain:
it gives the values that pydicom would give, or None, which means "ask pydicom". It is pure arithmetic over bytes, so
no input makes it recurse, inflate or allocate more than its window.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class, whatever its name in the library

from pydicom.datadict import DicomDictionary

from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.tags import NOTED, TAKEN, PixelElement, Tags, Value
from hilum.client.intake.transfer_syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE

WINDOW_BYTES = 16_384
"""How much one read takes: nearly every header fits."""

_MAX_READS = 256
_SEQUENCE_BYTES = 1 << 20
_MAX_DEPTH = 32
_LONGEST_VALUE_BYTES = 4_096
_GREATEST_IS = 2**31 - 1
_UNDEFINED = 0xFFFF_FFFF
_PREAMBLE_BYTES = 132
_META_GROUP = 0x0002
_LAST_OF_META = 0x0002_FFFF
_SMALLEST_BYTES = 12  # of the longest element head: pydicom is asked about a file that ends closer to its last element
_DELIMITERS = 0xFFFE
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_PIXEL_TAGS = frozenset({0x7FE0_0008, 0x7FE0_0009, 0x7FE0_0010})
_FUNCTIONAL_GROUPS = 0x5200_9229

# Values that a whole series, scanner or archive shares are parsed once; the memory is bounded.
_remembered = lru_cache(maxsize=2048)

_explicit_head = Struct("<HHHH").unpack_from
_implicit_head = Struct("<HHI").unpack_from
_u32 = Struct("<I").unpack_from


def _code(vr: str) -> int:
    return int.from_bytes(vr.encode(), "little")


# PS3.5 section 7.1.2: these have two reserved bytes and a length of four; the others a length of two.
_LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
_SHORT = ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST")
_HEAD_BYTES = {_code(vr): 12 for vr in _LONG} | {_code(vr): 8 for vr in (*_SHORT, "TM", "UI", "UL", "US")}
_SQ, _UI, _OW = _code("SQ"), _code("UI"), _code("OW")
_PIXEL_VRS = {_code(vr): vr for vr in ("OB", "OW", "OF", "OD")}

# Character sets that hold ASCII unchanged (PS3.3 section C.12.1.1.2): text of plain ASCII reads the same in all of them.
_ASCII_SETS = frozenset(
    {"", "ISO_IR 6", "ISO 2022 IR 6", "ISO_IR 192", "GB18030", "GBK"}
    | {f"{standard} {number}" for number in (100, 101, 109, 110, 144, 127, 126, 138, 148, 166)
       for standard in ("ISO_IR", "ISO 2022 IR")}
)  # fmt: skip
_FIRST_SETS = frozenset(name for name in _ASCII_SETS if name == "" or "IR" in name) - {"ISO_IR 192"}
_MORE_SETS = _FIRST_SETS | {"ISO 2022 IR 13", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO 2022 IR 159"}
_MORE_SETS |= {"ISO 2022 IR 58"}
_TEXT = frozenset({"Manufacturer", "PatientID", "ReceiveCoilName"})
_ESCAPE = "\x1b"


class _Odd(Exception):  # noqa: N818 - not an error: pydicom is asked
    """The walker is not sure; caught where the walk began."""


def walk_tags(path: Path | str) -> Tags | None:
    """Take the wanted tags of one file.

    Returns:
        The tags, or None where only pydicom can tell.

    Raises:
        Skip: If the file can't be read or is no DICOM file.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    try:
        data = os.read(handle, WINDOW_BYTES)
        size = len(data) if len(data) < WINDOW_BYTES else os.lseek(handle, 0, os.SEEK_END)
        if data[128:132] != b"DICM":
            if data[:2] in (b"\x08\x00", b"\x02\x00"):
                return None
            raise Skip(Reason.NOT_DICOM)
        return _walk(handle, data, size)
    except (_Odd, ValueError):
        return None
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    finally:
        os.close(handle)


def _walk(handle: int, data: bytes, size: int) -> Tags | None:
    start, syntax, media_class = _meta(data)
    if syntax in EXPLICIT_LITTLE:
        values, pixels = _explicit(handle, data, start, size)
    elif syntax == IMPLICIT_LITTLE:
        values, pixels = _implicit(handle, data, start, size)
    else:
        return None
    _check_text(values)
    return Tags(values, syntax, media_class, size, pixels)


def _meta(data: bytes) -> tuple[int, str, str]:
    """The file meta group (PS3.10 section 7.1): where the data set starts, the transfer syntax, the SOP class."""
    p, last = _PREAMBLE_BYTES, -1
    syntax, media_class = "", ""
    end = len(data) - 12
    while p <= end:
        group, element, vr, length = _explicit_head(data, p)
        if group != _META_GROUP:
            if p + 8 < len(data) and syntax:
                return p, syntax, media_class
            break
        if element <= last:
            raise _Odd
        last = element
        head = _HEAD_BYTES.get(vr)
        if head == 8:
            q = p + 8
        elif head is None:
            raise _Odd
        else:
            q = p + 12
            length = _u32(data, p + 8)[0]
        p = q + length
        if element == 0x0010 or element == 0x0002:
            text = _uids(data[q:p])
            if not isinstance(text, str) or vr != _UI:
                raise _Odd
            if element == 0x0010:
                syntax = text
            else:
                media_class = text
    raise _Odd


def _strings(raw: bytes) -> Value:
    """CS, TM: trailing padding goes, then the values part."""
    text = raw.decode("latin-1").rstrip(" \0")
    return tuple(text.split("\\")) if "\\" in text else text


def _uids(raw: bytes) -> Value:
    text = raw.decode("latin-1").rstrip(" \0")
    return tuple(map(str.strip, text.split("\\"))) if "\\" in text else text.strip()


def _text(raw: bytes) -> Value:
    """LO, SH: only plain ASCII is certain, for it is the same in nearly every character set."""
    text = raw.decode("ascii")
    if _ESCAPE in text:
        raise _Odd
    if "\\" in text:
        return tuple([part.rstrip(" \0") for part in text.split("\\")])
    return text.rstrip(" \0")


def _decimals(raw: bytes) -> Value:
    raw = raw.rstrip(b" \0")
    return tuple(map(float, raw.split(b"\\"))) if b"\\" in raw else float(raw)


def _integers(raw: bytes) -> Value:
    raw = raw.rstrip(b" \0")
    numbers = tuple(map(int, raw.split(b"\\")))
    if max(map(abs, numbers)) > _GREATEST_IS:
        raise _Odd
    return numbers if len(numbers) > 1 else numbers[0]


def _binary(code: str, width: int) -> Callable[[bytes], Value]:
    one = Struct("<" + code).unpack

    def parse(raw: bytes) -> Value:
        if len(raw) == width:
            number: int | float = one(raw)[0]
            return number
        if len(raw) % width:
            raise _Odd
        return tuple(Struct(f"<{len(raw) // width}{code}").unpack(raw))

    return parse


_PARSE: dict[str, Callable[[bytes], Value]] = {
    "CS": _strings, "TM": _strings, "UI": _uids, "LO": _text, "SH": _text, "DS": _decimals, "IS": _integers,
    "US": _binary("H", 2), "SS": _binary("h", 2), "FD": _binary("d", 8),
}  # fmt: skip
_EMPTY: dict[str, Value] = dict.fromkeys(("CS", "TM", "UI", "LO", "SH"), "")
_SHARED = {
    name: _remembered(parse) for name, parse in _PARSE.items() if name in {"CS", "LO", "SH", "DS", "IS"}
}
_OWN = frozenset({"ImagePositionPatient", "InstanceNumber", "PatientID", "TriggerTime", "SpecificCharacterSet"})
"""Values that differ from file to file, or that shall not be remembered."""

_Parser = tuple[str, Callable[[bytes], Value] | None, Value]
_NOTE: Callable[[bytes], Value] | None = None


def _parser(keyword: str, vr: str) -> _Parser:
    parse = _PARSE[vr] if keyword in _OWN else _SHARED.get(vr, _PARSE[vr])
    return keyword, parse, _EMPTY.get(vr)


# By tag, then by the VR that the file states: any other VR is odd.
_EXPLICIT_TAKEN: dict[int, dict[int, _Parser]] = {
    tag: {_code(one): _parser(keyword, one) for one in vr.split(" or ")} for tag, (keyword, vr) in TAKEN.items()
} | {tag: {code: (keyword, _NOTE, True) for code in _HEAD_BYTES} for tag, keyword in NOTED.items()}  # fmt: skip
_IMPLICIT_TAKEN: dict[int, _Parser] = {
    tag: _parser(keyword, vr) for tag, (keyword, vr) in TAKEN.items() if " or " not in vr
} | {tag: (keyword, _NOTE, True) for tag, keyword in NOTED.items()}
_SIGNED_OR_NOT = {tag: keyword for tag, (keyword, vr) in TAKEN.items() if " or " in vr}


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
            raise _Odd
        self.base += p
        self.data = os.pread(self.handle, size_bytes, self.base)
        return self.data

    def ended(self, p: int) -> bool:
        """Whether the file ends exactly at the relative position `p`.

        Raises:
            _Odd: If it ends before, or so soon after that no element fits.
        """
        left = self.size - self.base - p
        if left < 0 or 0 < left < _SMALLEST_BYTES:
            raise _Odd
        return left == 0


def _explicit(
    handle: int, data: bytes, p: int, size: int
) -> tuple[dict[str, Value], PixelElement | None]:
    """The top level of an explicit VR little endian data set."""
    values: dict[str, Value] = {}
    window = _Window(handle, data, 0, size)
    limit, last = len(data) - _SMALLEST_BYTES, _LAST_OF_META
    head_of, heads, taken = _explicit_head, _HEAD_BYTES, _EXPLICIT_TAKEN
    while True:
        if p > limit:
            if window.ended(p):
                return values, None
            data, p = window.move(p), 0
            limit = len(data) - _SMALLEST_BYTES
            if limit < 0:
                raise _Odd
        group, element, vr, length = head_of(data, p)
        tag = group << 16 | element
        if tag <= last:
            raise _Odd
        last = tag
        head = heads.get(vr)
        if head == 8:
            q = p + 8
        elif head is None:
            raise _Odd
        else:
            (length,), q = _u32(data, p + 8), p + 12
            if tag in _PIXEL_TAGS:
                return values, _pixels(vr, window.base + q, length)
            if tag == _FUNCTIONAL_GROUPS or length == _UNDEFINED:
                if tag in NOTED:
                    values[NOTED[tag]] = True
                if tag == _FUNCTIONAL_GROUPS:
                    return values, None
                if vr != _SQ:
                    raise _Odd
                p = _past_sequence(window, q, explicit=True)
                data, limit = window.data, len(window.data) - _SMALLEST_BYTES
                continue
        by_vr = taken.get(tag)
        if by_vr is None:
            p = q + length
            continue
        keyword, parse, empty = by_vr.get(vr) or _odd()
        if parse is None or not length:
            values[keyword] = empty
        else:
            if q + length > len(data):
                data, q = _more(window, q, length), 0
                limit = len(data) - _SMALLEST_BYTES
            values[keyword] = parse(data[q : q + length])
        p = q + length


def _implicit(
    handle: int, data: bytes, p: int, size: int
) -> tuple[dict[str, Value], PixelElement | None]:
    """The top level of an implicit VR little endian data set."""
    if data[p + 4 : p + 6].isalpha() and data[p + 4 : p + 6].isupper():
        raise _Odd  # stated implicit, written explicit
    values: dict[str, Value] = {}
    window = _Window(handle, data, 0, size)
    limit, last = len(data) - _SMALLEST_BYTES, _LAST_OF_META
    head_of, taken = _implicit_head, _IMPLICIT_TAKEN
    while True:
        if p > limit:
            if window.ended(p):
                return values, None
            data, p = window.move(p), 0
            limit = len(data) - _SMALLEST_BYTES
            if limit < 0:
                raise _Odd
        group, element, length = head_of(data, p)
        tag = group << 16 | element
        if tag <= last:
            raise _Odd
        last, q = tag, p + 8
        wanted = taken.get(tag)
        if wanted is None:
            if tag in _PIXEL_TAGS:
                return values, _pixels(_OW, window.base + q, length)
            if tag in _SIGNED_OR_NOT:
                wanted = _signed_or_not(tag, values)
            elif length != _UNDEFINED:
                p = q + length
                continue
        if length == _UNDEFINED or tag == _FUNCTIONAL_GROUPS:
            if tag in NOTED:
                values[NOTED[tag]] = True
            if tag == _FUNCTIONAL_GROUPS:
                return values, None
            if not _is_sequence(tag, data, q):
                raise _Odd
            p = _past_sequence(window, q, explicit=False)
            data, limit = window.data, len(window.data) - _SMALLEST_BYTES
            continue
        keyword, parse, empty = wanted or _odd()
        if parse is None or not length:
            values[keyword] = empty
        else:
            if q + length > len(data):
                data, q = _more(window, q, length), 0
                limit = len(data) - _SMALLEST_BYTES
            values[keyword] = parse(data[q : q + length])
        p = q + length


def _odd() -> _Parser:
    raise _Odd


def _signed_or_not(tag: int, values: dict[str, Value]) -> _Parser:
    """The VR that pixel representation chooses (PS3.5 annex A.1)."""
    representation = values.get("PixelRepresentation")
    if representation not in (0, 1):
        raise _Odd
    return _parser(_SIGNED_OR_NOT[tag], "SS" if representation else "US")


def _pixels(vr: int, offset: int, length: int) -> PixelElement:
    return PixelElement(
        _PIXEL_VRS.get(vr) or _odd()[0], offset, None if length == _UNDEFINED else length
    )


def _more(window: _Window, q: int, length: int) -> bytes:
    """Bring a value that crosses the window's end into it."""
    if length > _LONGEST_VALUE_BYTES:
        raise _Odd
    data = window.move(q)
    if len(data) < length:
        raise _Odd
    return data


def _past_sequence(window: _Window, p: int, *, explicit: bool) -> int:
    """Where a sequence of undefined length ends; the window is moved if it does not hold all of it."""
    try:
        return _sequence_end(window.data, p, explicit=explicit)
    except StructError:
        data = window.move(p, _SEQUENCE_BYTES)
    try:
        return _sequence_end(data, 0, explicit=explicit)
    except StructError:
        raise _Odd from None


_IN_SEQUENCE, _IN_OPEN_ITEM = -2, -1  # other levels are items of known length: where they end


def _sequence_end(data: bytes, p: int, *, explicit: bool) -> int:
    """Walk items and elements (PS3.5 section 7.5) without recursion.

    Raises:
        StructError: If the data ends first.
    """
    levels = [_IN_SEQUENCE]
    while levels:
        level = levels[-1]
        if 0 <= level <= p:
            if level < p:
                raise _Odd
            levels.pop()
            continue
        group, element, length = _implicit_head(data, p)
        tag = group << 16 | element
        p += 8
        if level == _IN_SEQUENCE:
            if tag == _ITEM:
                levels.append(_IN_OPEN_ITEM if length == _UNDEFINED else p + length)
            elif tag == _SEQUENCE_END and length == 0:
                levels.pop()
            else:
                raise _Odd
        elif tag == _ITEM_END and length == 0 and level == _IN_OPEN_ITEM:
            levels.pop()
        elif group == _DELIMITERS:
            raise _Odd
        else:
            length, head = _explicit_length(data, p - 8) if explicit else (length, 8)
            p += head - 8
            if length == _UNDEFINED:
                if not (data[p - 8 : p - 6] == b"SQ" if explicit else _is_sequence(tag, data, p)):
                    raise _Odd
                levels.append(_IN_SEQUENCE)
            else:
                p += length
        if len(levels) > _MAX_DEPTH:
            raise _Odd
    return p


def _explicit_length(data: bytes, p: int) -> tuple[int, int]:
    _, _, vr, length = _explicit_head(data, p)
    head = _HEAD_BYTES.get(vr) or _odd_bytes()
    return (length if head == 8 else _u32(data, p + 8)[0]), head


def _odd_bytes() -> int:
    raise _Odd


def _is_sequence(tag: int, data: bytes, q: int) -> bool:
    """Whether an element of implicit VR and undefined length is one: by the dictionary, else by its first item."""
    known = DicomDictionary.get(tag)
    if known is not None:
        return known[0] == "SQ"
    group, element, _ = _implicit_head(data, q)
    return bool(tag >> 16 & 1) and (group << 16 | element) == _ITEM


def _check_text(values: dict[str, Value]) -> None:
    """Text was read as plain ASCII: odd where the character set may see something else in it."""
    sets = values.get("SpecificCharacterSet", "")
    if sets in _ASCII_SETS or _TEXT.isdisjoint(values):
        return
    if not (isinstance(sets, tuple) and sets[0] in _FIRST_SETS and _MORE_SETS.issuperset(sets)):
        raise _Odd
