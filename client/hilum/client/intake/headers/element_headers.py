"""What the first bytes of an element say: how far it is to the next, and whether its value is wanted."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

from hilum.client.intake.headers.header_templates import HeaderTemplates, Token, Wanted
from hilum.client.intake.headers.parsing import (
    PARSE,
    SHARED,
    TEXT_VRS,
    Parse,
    UncertainValue,
    empty_text,
    no_number,
)
from hilum.client.intake.headers.pet_tags import NOTED_OF_PET, PET, TAKEN_OF_PET
from hilum.client.intake.headers.tags import NOTED, TAKEN

HEAD_BYTES, LONG_HEAD_BYTES = 8, 12
UNDEFINED = 0xFFFF_FFFF
DELIMITERS = 0xFFFE
PIXEL_TAGS = frozenset({0x7FE0_0008, 0x7FE0_0009, 0x7FE0_0010})
SIGNED_OR_NOT = frozenset(tag for tag, (_, vr) in TAKEN.items() if " or " in vr)
"""Tags whose VR pixel representation chooses where it is implicit (PS3.5 annex A.1)."""

# PS3.5 section 7.1.2: these have two reserved bytes and a length of four; the others a length of two.
LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
SHORT_VRS = frozenset(
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

_MAX_HEADS, _MAX_WRITERS = 32_768, 64
_MAX_VALUE_BYTES = 4_096
_TAKEN_OF_META = {
    0x0002_0002: ("MediaStorageSOPClassUID", "UI"),
    0x0002_0010: ("TransferSyntaxUID", "UI"),
    0x0002_0012: ("ImplementationClassUID", "UI"),
}
_OWN = frozenset(
    {"SOPInstanceUID", "ImagePositionPatient", "InstanceNumber", "TriggerTime", "AcquisitionTime"}
)
"""Values that differ from file to file: remembering them would cost more than it saves."""

u32 = Struct("<I").unpack_from
implicit_head = Struct("<HHI").unpack_from
_explicit_head = Struct("<HHHH").unpack_from

Head = tuple[int, Wanted | None]
"""The bytes of head and value together, and what is wanted of the value. No bytes, where these eight don't tell."""

LONG: Wanted = (0, "", no_number)
"""Stands for an element of explicit VR whose length follows in four more bytes, and of which nothing is wanted."""

SPECIAL: Wanted = (0, "", no_number)
"""Stands for a delimiter, for pixel data, and for what is only noted or depends on another element."""


class EndOfWindow(Exception):  # noqa: N818 - caught where the window can be moved
    """The bytes in memory end here; the file may go on, and the walker then moves its window."""


def _code(vr: str) -> int:
    return int.from_bytes(vr.encode(), "little")


def _code_at(data: bytes, p: int) -> int:
    return int.from_bytes(data[p : p + 2], "little")


_WIDTHS = {_code(vr): LONG_HEAD_BYTES for vr in LONG_VRS} | {_code(vr): HEAD_BYTES for vr in SHORT_VRS}


def wanted_of(tag: int, vr: str, length: int, taken: Mapping[int, tuple[str, str]] = TAKEN) -> Wanted | None:
    """Return what is wanted of a value.

    Raises:
        UncertainValue: If the file states another VR than the dictionary, or a length that no such value has.
    """
    if tag not in taken:
        return None
    keyword, allowed = taken[tag]
    if vr not in allowed.split(" or ") or length > _MAX_VALUE_BYTES:
        raise UncertainValue
    parse: Parse = PARSE[vr] if keyword in _OWN else SHARED[vr]
    if length == 0:
        parse = empty_text if vr in TEXT_VRS else no_number
    return tag, keyword, parse


class Heads(dict[bytes, Head]):
    """What the first eight bytes of an element say, worked out once for each tag, VR and length that turns up.

    In implicit VR, and in explicit VR with a length of two bytes, they are the whole head (PS3.5 section 7.1); so one
    look-up replaces the arithmetic. They hold no value, hence no identifier.

    Args:
        taken: The attributes whose values are wanted.
        noted: Those that are noted.
    """

    def __init__(
        self, taken: Mapping[int, tuple[str, str]] = TAKEN, noted: Mapping[int, str] = NOTED
    ) -> None:
        super().__init__()
        self.taken, self.noted = taken, noted
        self.plain: dict[bytes, int] = {}
        """The bytes of the elements of which nothing is wanted; 0 for all others."""

    def __missing__(self, key: bytes) -> Head:
        if len(key) < HEAD_BYTES:
            raise EndOfWindow
        if len(self) >= _MAX_HEADS:
            self.clear()
            self.plain.clear()
        step, wanted = head = self[key] = self.parse(key)
        self.plain[key] = step if wanted is None else 0
        return head

    def parse(self, key: bytes) -> Head:
        """Work out eight bytes.

        Raises:
            UncertainValue: If they are not a head that the walker is sure of.
        """
        raise NotImplementedError


class _ExplicitHeads(Heads):
    def parse(self, key: bytes) -> Head:
        group, element, code, length = _explicit_head(key)
        tag = group << 16 | element
        if group == DELIMITERS:
            return 0, SPECIAL
        width = _WIDTHS.get(code)
        if width is None or (width == LONG_HEAD_BYTES and (tag in self.taken or tag in _TAKEN_OF_META)):
            raise UncertainValue
        if tag in self.noted or tag in PIXEL_TAGS:
            return 0, SPECIAL
        if width == LONG_HEAD_BYTES:
            return 0, LONG
        return width + length, self.wanted(tag, key[4:6].decode(), length)

    def wanted(self, tag: int, vr: str, length: int) -> Wanted | None:
        return wanted_of(tag, vr, length, self.taken)


class _MetaHeads(_ExplicitHeads):
    def wanted(self, tag: int, vr: str, length: int) -> Wanted | None:
        return wanted_of(tag, vr, length, _TAKEN_OF_META)


class _ImplicitHeads(Heads):
    def parse(self, key: bytes) -> Head:
        group, element, length = implicit_head(key)
        tag = group << 16 | element
        special = tag in self.noted or tag in PIXEL_TAGS or tag in SIGNED_OR_NOT
        if special or group == DELIMITERS or length == UNDEFINED:
            return 0, SPECIAL
        vr = self.taken[tag][1] if tag in self.taken else ""
        return 8 + length, wanted_of(tag, vr, length, self.taken)


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """How elements are written, and what was learnt about files written so.

    Attributes:
        of_pet: More is wanted of these files.
    """

    explicit: bool
    heads: Heads
    templates: HeaderTemplates
    of_pet: bool = False

    def whole_head(self, data: bytes, p: int) -> tuple[int, str, int, int]:
        """Tag, VR (empty where it is implicit), where the value starts, and its length.

        Raises:
            UncertainValue: If the file ends first, or at a delimiter, which has no place here.
        """
        if p + LONG_HEAD_BYTES > len(data):
            raise UncertainValue
        group, element, code, length = _explicit_head(data, p)
        if group == DELIMITERS:
            raise UncertainValue
        tag = group << 16 | element
        if not self.explicit:
            return tag, "", p + HEAD_BYTES, u32(data, p + 4)[0]
        vr = data[p + 4 : p + 6].decode()
        if _WIDTHS[code] == LONG_HEAD_BYTES:
            return tag, vr, p + LONG_HEAD_BYTES, u32(data, p + 8)[0]
        return tag, vr, p + HEAD_BYTES, length

    def token(self, data: bytes, p: int, q: int) -> Token:
        """Return what lies between `p` and `q`: one element, or one delimiter."""
        delimiter = data[p : p + 2] == b"\xfe\xff"
        long = self.explicit and not delimiter and _WIDTHS[_code_at(data, p + 4)] == LONG_HEAD_BYTES
        width = LONG_HEAD_BYTES if long else HEAD_BYTES
        return data[p : p + width], q - p - width


META = _MetaHeads()
EXPLICIT, IMPLICIT = _ExplicitHeads(), _ImplicitHeads()
_EXPLICIT_PET, _IMPLICIT_PET = (kind(TAKEN_OF_PET, NOTED_OF_PET) for kind in (_ExplicitHeads, _ImplicitHeads))


@lru_cache(maxsize=_MAX_WRITERS)
def encoding_of(*, explicit: bool, writer: str, media_class: str) -> Encoding:  # noqa: ARG001 - the writer is of the cache's key
    """Return how one implementation (0002,0012) writes files of one kind, and what was learnt about these."""
    of_pet = media_class == PET
    if explicit:
        return Encoding(explicit, _EXPLICIT_PET if of_pet else EXPLICIT, HeaderTemplates(), of_pet)
    return Encoding(explicit, _IMPLICIT_PET if of_pet else IMPLICIT, HeaderTemplates(), of_pet)
