"""The fast way to a header: one read, one loop over the top-level tags, and no value that is not wanted.

The walker reads explicit and implicit little endian (PS3.5 sections 7.1 and A.1 to A.4) and only where it is certain:
it gives the values that pydicom would give, or None, which means "ask pydicom". It is pure arithmetic over bytes, so
no input makes it recurse, inflate or allocate more than its window.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from struct import Struct
from struct import error as StructError

from pydicom.datadict import dictionary_VR

from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.tags import IMPLICIT_PIXEL_VRS, NOTED, TAKEN, PixelElement, Tags, Value
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
_KEY_BYTES, _LONG_HEAD_BYTES = 8, 12
_MOST_HEADS = 32_768
_DELIMITERS = 0xFFFE
_CHARACTER_SET = 0x0008_0005
_ITEM, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E0DD
_ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
_PIXEL_TAGS = frozenset({0x7FE0_0008, 0x7FE0_0009, 0x7FE0_0010})

# Values that a whole series, scanner or archive shares are parsed once; the memory is bounded.
_remembered = lru_cache(maxsize=2048)

_explicit_head = Struct("<HHHH").unpack_from
_implicit_head = Struct("<HHI").unpack_from
_u32 = Struct("<I").unpack_from


def _code(vr: str) -> int:
    return int.from_bytes(vr.encode(), "little")


# PS3.5 section 7.1.2: these have two reserved bytes and a length of four; the others a length of two.
_LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
_SHORT_VRS = frozenset(
    [
        "AE",
        "AS",
        "AT",
        "CS",
        "DA",
        "DS",
        "DT",
        "FD",
        "FL",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "SL",
        "SS",
        "ST",
        "TM",
        "UI",
        "UL",
        "US",
    ]
)
_HEAD_BYTES = {_code(vr): 12 for vr in _LONG_VRS} | {_code(vr): 8 for vr in _SHORT_VRS}
_PIXEL_VRS = frozenset({"OB", "OW", "OF", "OD"})

# Character sets that hold ASCII unchanged (PS3.3 section C.12.1.1.2): text of plain ASCII reads the same in all of them.
_ASCII_SETS = frozenset(
    {"", "ISO_IR 6", "ISO 2022 IR 6", "ISO_IR 192", "GB18030", "GBK"}
    | {f"{standard} {number}" for number in (100, 101, 109, 110, 144, 127, 126, 138, 148, 166)
       for standard in ("ISO_IR", "ISO 2022 IR")}
)  # fmt: skip
_FIRST_SETS = frozenset(name for name in _ASCII_SETS if name == "" or "IR" in name) - {"ISO_IR 192"}
_MORE_SETS = _FIRST_SETS | {"ISO 2022 IR 13", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO 2022 IR 159"}
_MORE_SETS |= {"ISO 2022 IR 58"}
_ESCAPE = "\x1b"


class _Odd(Exception):  # noqa: N818 - not an error: pydicom is asked
    """The walker is not sure; caught where the walk began."""


class _EndOfWindow(Exception):  # noqa: N818 - caught where the window can be moved
    """The bytes in memory end here; the file may go on."""


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
        encoding = _EXPLICIT
    elif syntax == IMPLICIT_LITTLE:
        encoding = _IMPLICIT
        if _looks_explicit(data, start):
            raise _Odd
    else:
        return None
    values, pixels = _top_level(_Window(handle, data, 0, size), start, encoding)
    _check_sets(values.get("SpecificCharacterSet", ""))
    return Tags(values, syntax, media_class, size, pixels)


def _looks_explicit(data: bytes, p: int) -> bool:
    vr = data[p + 4 : p + 6]
    return vr.isalpha() and vr.isupper()


def _meta(data: bytes) -> tuple[int, str, str]:
    """The file meta group (PS3.10 section 7.1): where the data set starts, the transfer syntax, the SOP class."""
    p, last, heads = _PREAMBLE_BYTES, 0, _META
    texts: dict[str, Value] = {"MediaStorageSOPClassUID": ""}
    end = len(data) - _LONG_HEAD_BYTES
    while p <= end:
        if data[p] != _META_GROUP or data[p + 1]:
            syntax, media_class = texts.get("TransferSyntaxUID"), texts["MediaStorageSOPClassUID"]
            if not isinstance(syntax, str) or not isinstance(media_class, str):
                break
            return p, syntax, media_class
        step, special = heads[data[p : p + 8]]
        if special is None:
            p += step
        elif step == 0:
            p += _LONG_HEAD_BYTES + _u32(data, p + 8)[0]
        else:
            tag, keyword, parse = special
            if tag <= last:
                break
            last, q, p = tag, p + 8, p + step
            texts[keyword] = parse(data[q:p])
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
    if b"\\" in raw:
        return tuple([_integer(part) for part in raw.split(b"\\")])
    return _integer(raw)


def _integer(raw: bytes) -> int:
    number = int(raw)
    if not -_GREATEST_IS <= number <= _GREATEST_IS:
        raise _Odd
    return number


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
_TEXT_VRS = frozenset({"CS", "TM", "UI", "LO", "SH"})
_SHARED: dict[str, Callable[[bytes], Value]] = {name: _remembered(parse) for name, parse in _PARSE.items()}
_OWN = frozenset(
    {"SOPInstanceUID", "ImagePositionPatient", "InstanceNumber", "TriggerTime", "AcquisitionTime"}
)
"""Values that differ from file to file: remembering them would cost more than it saves."""

_Wanted = tuple[int, str, Callable[[bytes], Value]]
"""Tag, keyword, and what parses the value."""

_Head = tuple[int, _Wanted | None]
"""The bytes of head and value together, and what is wanted of the value. No bytes, where these eight don't tell."""


def _empty_text(_: bytes) -> Value:
    return ""


def _no_number(_: bytes) -> Value:
    return None


_LONG: _Wanted = (0, "", _no_number)
"""Stands for an element of explicit VR whose length follows in four more bytes, and of which nothing is wanted."""

_SPECIAL: _Wanted = (0, "", _no_number)
"""Stands for a delimiter, for pixel data, and for what is only noted or depends on another element."""


def _wanted(tag: int, vr: str, length: int, taken: Mapping[int, tuple[str, str]] = TAKEN) -> _Wanted | None:
    """What is wanted of a value.

    Raises:
        _Odd: If the file states another VR than the dictionary, or a length that no such value has.
    """
    if tag not in taken:
        return None
    keyword, allowed = taken[tag]
    if vr not in allowed.split(" or ") or length > _LONGEST_VALUE_BYTES:
        raise _Odd
    if length == 0:
        return tag, keyword, _empty_text if vr in _TEXT_VRS else _no_number
    return tag, keyword, _PARSE[vr] if keyword in _OWN else _SHARED[vr]


class _Heads(dict[bytes, _Head]):
    """What the first eight bytes of an element say, worked out once for each tag, VR and length that turns up.

    In implicit VR, and in explicit VR with a length of two bytes, they are the whole head (PS3.5 section 7.1); so one
    look-up replaces the arithmetic. They hold no value, hence no identifier.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plain: dict[bytes, int] = {}
        """The bytes of the elements of which nothing is wanted; 0 for all others. Most of a header is one such run."""

    def __missing__(self, key: bytes) -> _Head:
        if len(key) < _KEY_BYTES:
            raise _EndOfWindow
        if len(self) >= _MOST_HEADS:
            self.clear()
            self.plain.clear()
        step, wanted = head = self[key] = self.parse(key)
        self.plain[key] = step if wanted is None else 0
        return head

    def parse(self, key: bytes) -> _Head:
        raise NotImplementedError


class _ExplicitHeads(_Heads):
    def parse(self, key: bytes) -> _Head:
        group, element, code, length = _explicit_head(key)
        tag = group << 16 | element
        if group == _DELIMITERS:
            return 0, _SPECIAL
        width = _HEAD_BYTES.get(code)
        if width is None or (width == _LONG_HEAD_BYTES and (tag in TAKEN or tag in _TAKEN_OF_META)):
            raise _Odd
        if tag in NOTED or tag in _PIXEL_TAGS:
            return 0, _SPECIAL
        if width == _LONG_HEAD_BYTES:
            return 0, _LONG
        return width + length, self.wanted(tag, key[4:6].decode(), length)

    def wanted(self, tag: int, vr: str, length: int) -> _Wanted | None:
        return _wanted(tag, vr, length)


class _MetaHeads(_ExplicitHeads):
    def wanted(self, tag: int, vr: str, length: int) -> _Wanted | None:
        return _wanted(tag, vr, length, _TAKEN_OF_META)


class _ImplicitHeads(_Heads):
    def parse(self, key: bytes) -> _Head:
        group, element, length = _implicit_head(key)
        tag = group << 16 | element
        special = tag in NOTED or tag in _PIXEL_TAGS or tag in _SIGNED_OR_NOT
        if special or group == _DELIMITERS or length == _UNDEFINED:
            return 0, _SPECIAL
        return 8 + length, _wanted(tag, TAKEN[tag][1], length) if tag in TAKEN else None


_TAKEN_OF_META = {0x0002_0002: ("MediaStorageSOPClassUID", "UI"), 0x0002_0010: ("TransferSyntaxUID", "UI")}


@dataclass(frozen=True, slots=True)
class _Encoding:
    explicit: bool
    heads: _Heads


_SIGNED_OR_NOT = frozenset(tag for tag, (_, vr) in TAKEN.items() if " or " in vr)
_META = _MetaHeads()
_EXPLICIT = _Encoding(explicit=True, heads=_ExplicitHeads())
_IMPLICIT = _Encoding(explicit=False, heads=_ImplicitHeads())


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

    def holding(self, q: int, p: int) -> tuple[bytes, int, int]:
        """The data with the bytes from `q` to `p` in it, and where they are then."""
        if p <= len(self.data):
            return self.data, q, p
        data = self.move(q)
        if p - q > len(data):
            raise _Odd
        return data, 0, p - q

    def ended(self, p: int) -> bool:
        """Whether the file ends exactly at the relative position `p`.

        Raises:
            _Odd: If it ends before, or so soon after that no element fits.
        """
        left = self.size - self.base - p
        if left < 0 or 0 < left < _LONG_HEAD_BYTES:
            raise _Odd
        return left == 0


def _top_level(  # noqa: C901 - one loop: a call for each element would double the time it takes
    window: _Window, p: int, encoding: _Encoding
) -> tuple[dict[str, Value], PixelElement | None]:
    """The wanted values, and the pixel data if there is any.

    Wanted tags must ascend, or one may stand twice. The order of the others makes no difference.
    """
    values: dict[str, Value] = {}
    data, heads, plain, last = window.data, encoding.heads, encoding.heads.plain, _LAST_OF_META
    end = len(data)
    while True:
        try:
            while step := plain[data[p : p + 8]]:
                p += step
        except KeyError:
            pass  # the end of the window, or a head that was not met before
        try:
            step, wanted = heads[data[p : p + 8]]
        except _EndOfWindow:
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
                raise _Odd
            last, q, p = tag, p + 8, p + step
            if p > end:
                data, q, p = window.holding(q, p)
                end = len(data)
            values[keyword] = parse(data[q:p])
        elif wanted is _LONG and p + 12 <= end and (length := _u32(data, p + 8)[0]) != _UNDEFINED:
            p += 12 + length
        else:
            p, pixels = _special(window, p, encoding, values)
            if pixels is not None:
                return values, pixels
            data = window.data
            end = len(data)


def _special(
    window: _Window, p: int, encoding: _Encoding, values: dict[str, Value]
) -> tuple[int, PixelElement | None]:
    """Take an element that is no ordinary one: note it, skip it, or find that it is the pixel data."""
    if p + _LONG_HEAD_BYTES > len(window.data):
        window.move(p)
        p = 0
    tag, vr, q, length = _full_head(window.data, p, encoding)
    if tag in _PIXEL_TAGS:
        return q, _pixel_element(vr or IMPLICIT_PIXEL_VRS[tag], window.base + q, length)
    if tag in NOTED:
        if NOTED[tag] in values:
            raise _Odd
        values[NOTED[tag]] = True
    if length == _UNDEFINED:
        if vr not in ("SQ", "") or (vr == "" and not _is_sequence(tag, window.data, q)):
            raise _Odd
        return _past_sequence(window, q, encoding), None
    p = q + length
    if tag in _SIGNED_OR_NOT:
        data, q, p = window.holding(q, p)
        tag, keyword, parse = _signed_or_not(tag, values, length)
        values[keyword] = parse(data[q:p])
    return p, None


def _full_head(data: bytes, p: int, encoding: _Encoding) -> tuple[int, str, int, int]:
    """Tag, VR (empty where it is implicit), where the value starts, and its length.

    Raises:
        _Odd: If the file ends first, or at a delimiter, which has no place here.
    """
    if p + _LONG_HEAD_BYTES > len(data):
        raise _Odd
    group, element, code, length = _explicit_head(data, p)
    if group == _DELIMITERS:
        raise _Odd
    tag = group << 16 | element
    if not encoding.explicit:
        return tag, "", p + 8, _u32(data, p + 4)[0]
    vr = data[p + 4 : p + 6].decode()
    if _HEAD_BYTES[code] == _LONG_HEAD_BYTES:
        return tag, vr, p + 12, _u32(data, p + 8)[0]
    return tag, vr, p + 8, length


def _pixel_element(vr: str, offset: int, length: int) -> PixelElement:
    if vr not in _PIXEL_VRS:
        raise _Odd
    return PixelElement(vr, offset, None if length == _UNDEFINED else length)


def _signed_or_not(tag: int, values: dict[str, Value], length: int) -> _Wanted:
    """The VR that pixel representation chooses where it is implicit (PS3.5 annex A.1)."""
    representation = values.get("PixelRepresentation")
    wanted = _wanted(tag, "SS" if representation else "US", length)
    if representation not in (0, 1) or wanted is None or wanted[1] in values:
        raise _Odd
    return wanted


def _past_sequence(window: _Window, p: int, encoding: _Encoding) -> int:
    """Where a sequence of undefined length ends; the window is moved if it does not hold all of it."""
    try:
        return _sequence_end(window.data, p, encoding)
    except (_EndOfWindow, StructError):
        data = window.move(p, _SEQUENCE_BYTES)
    try:
        return _sequence_end(data, 0, encoding)
    except (_EndOfWindow, StructError):
        raise _Odd from None


_IN_SEQUENCE, _IN_OPEN_ITEM = -2, -1  # other levels are items of known length: where they end


def _sequence_end(data: bytes, p: int, encoding: _Encoding) -> int:
    """Walk items and elements (PS3.5 section 7.5) without recursion.

    Raises:
        _EndOfWindow: If the data ends first.
        StructError: Likewise.
    """
    levels, level, heads = [_IN_SEQUENCE], _IN_SEQUENCE, encoding.heads
    while True:
        if level == _IN_SEQUENCE:
            p = _item_or_end(data, p, levels)
        elif level >= 0 and p >= level:
            if p > level:
                raise _Odd
            levels.pop()
        else:
            step, special = heads[data[p : p + 8]]
            if step:
                if special is not None and special[0] == _CHARACTER_SET:
                    _check_sets(special[2](data[p + 8 : p + step]))
                p += step
                continue
            if special is _LONG and (length := _u32(data, p + 8)[0]) != _UNDEFINED:
                p += 12 + length
                continue
            p = _special_inside(data, p, encoding, levels)
        if not levels:
            return p
        level = levels[-1]


def _item_or_end(data: bytes, p: int, levels: list[int]) -> int:
    """Between items: one opens, or the sequence closes."""
    group, element, length = _implicit_head(data, p)
    tag = group << 16 | element
    if tag == _ITEM and len(levels) < _MAX_DEPTH:
        levels.append(_IN_OPEN_ITEM if length == _UNDEFINED else p + 8 + length)
    elif tag == _SEQUENCE_END and length == 0:
        levels.pop()
    else:
        raise _Odd
    return p + 8


def _special_inside(data: bytes, p: int, encoding: _Encoding, levels: list[int]) -> int:
    """Inside an item: a sequence of undefined length opens, the item closes, or a plain element is skipped."""
    if data[p : p + 8] == _ITEM_END and levels[-1] == _IN_OPEN_ITEM:
        levels.pop()
        return p + 8
    if p + _LONG_HEAD_BYTES > len(data):
        raise _EndOfWindow
    tag, vr, q, length = _full_head(data, p, encoding)
    if length != _UNDEFINED:
        return q + length
    if vr not in ("SQ", "") or (vr == "" and not _is_sequence(tag, data, q)):
        raise _Odd
    levels.append(_IN_SEQUENCE)
    return q


def _is_sequence(tag: int, data: bytes, q: int) -> bool:
    """Whether an element of implicit VR and undefined length is one: by the dictionary, else by its first item."""
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return bool(tag >> 16 & 1) and data[q : q + 4] == b"\xfe\xff\x00\xe0"


def _check_sets(sets: Value) -> None:
    """Text was read as plain ASCII: odd where the character set may see something else in it, or is none at all."""
    if sets in _ASCII_SETS:
        return
    if not (isinstance(sets, tuple) and sets[0] in _FIRST_SETS and _MORE_SETS.issuperset(sets)):
        raise _Odd
