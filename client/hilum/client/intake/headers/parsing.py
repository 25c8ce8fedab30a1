"""From the bytes of one value to what pydicom would give, or `UncertainValue` where that is not certain (PS3.5 section 6.2)."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct
from types import MappingProxyType

from hilum.client.intake.headers.tags import Value

Parse = Callable[[bytes], Value]

_MAX_IS = 2**31 - 1
_ESCAPE = "\x1b"
# Character sets that hold ASCII unchanged (PS3.3 section C.12.1.1.2): text of plain ASCII reads the same in all of them.
_ASCII_SETS = frozenset(
    {"", "ISO_IR 6", "ISO 2022 IR 6", "ISO_IR 192", "GB18030", "GBK"}
    | {f"{standard} {number}" for number in (100, 101, 109, 110, 144, 127, 126, 138, 148, 166)
       for standard in ("ISO_IR", "ISO 2022 IR")}
)  # fmt: skip
_FIRST_SETS = frozenset(name for name in _ASCII_SETS if name == "" or "IR" in name) - {"ISO_IR 192"}
_MORE_SETS = _FIRST_SETS | {"ISO 2022 IR 13", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO 2022 IR 159"}
_MORE_SETS |= {"ISO 2022 IR 58"}

# Values that a whole series, scanner or archive shares are parsed once; the memory is bounded.
_remembered = lru_cache(maxsize=2048)


class UncertainValue(Exception):  # noqa: N818 - not an error: pydicom is asked
    """The walker is not sure; caught where the walk began, and then pydicom is asked."""


def check_sets(sets: Value) -> None:
    """Text was read as plain ASCII: is that right in these character sets (0008,0005)?

    Raises:
        UncertainValue: If one of them may see something else in it, or is not a character set.
    """
    if sets in _ASCII_SETS:
        return
    if not (isinstance(sets, tuple) and sets[0] in _FIRST_SETS and _MORE_SETS.issuperset(sets)):
        raise UncertainValue


def empty_text(_: bytes) -> Value:
    """Return what pydicom gives for text without a character."""
    return ""


def no_number(_: bytes) -> Value:
    """Return what pydicom gives for a number without a digit."""
    return None


def _strings(raw: bytes) -> Value:
    """CS, DA, DT, TM: trailing padding goes, then the values part."""
    text = raw.decode("latin-1").rstrip(" \0")
    return tuple(text.split("\\")) if "\\" in text else text


def _uids(raw: bytes) -> Value:
    text = raw.decode("latin-1").rstrip(" \0")
    return tuple(map(str.strip, text.split("\\"))) if "\\" in text else text.strip()


def _text(raw: bytes) -> Value:
    """LO, SH: only plain ASCII is certain, for it is the same in nearly every character set."""
    text = raw.decode("ascii")
    if _ESCAPE in text:
        raise UncertainValue
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
    if not -_MAX_IS <= number <= _MAX_IS:
        raise UncertainValue
    return number


def _binary(code: str, width: int) -> Parse:
    one = Struct("<" + code).unpack

    def parse(raw: bytes) -> Value:
        if len(raw) == width:
            number: int | float = one(raw)[0]
            return number
        if len(raw) % width:
            raise UncertainValue
        return tuple(Struct(f"<{len(raw) // width}{code}").unpack(raw))

    return parse


PARSE: Mapping[str, Parse] = MappingProxyType(
    {
        "CS": _strings, "DA": _strings, "DT": _strings, "TM": _strings, "UI": _uids, "LO": _text, "SH": _text, "DS": _decimals, "IS": _integers,
        "US": _binary("H", 2), "SS": _binary("h", 2), "FD": _binary("d", 8),
    }
)  # fmt: skip
"""By value representation. They raise `UncertainValue` or ValueError where pydicom may see something else."""

SHARED: Mapping[str, Parse] = MappingProxyType({name: _remembered(parse) for name, parse in PARSE.items()})
"""The same, for values that come again and again."""

TEXT_VRS = frozenset({"CS", "DA", "DT", "TM", "UI", "LO", "SH"})
