"""What both ways of sending objects to an archive tell of each object."""

from dataclasses import dataclass, field
from pathlib import Path

_LEAST = {0xA700: 0xFF00, 0xA900: 0xFF00, 0xC000: 0xF000}  # families of codes: the part that tells them apart
_WORDS = {
    0x0106: "invalid_attribute_value",
    0x0110: "processing_failure",
    0x0111: "other_object_of_this_uid",
    0x0122: "sop_class_not_taken",
    0x0124: "not_authorised",
    0x0211: "no_such_operation",
    0xA700: "out_of_resources",
    0xA900: "does_not_match_its_sop_class",
    0xC000: "not_understood",
    0xC122: "transfer_syntax_not_taken",
}


@dataclass(frozen=True)
class Sent:
    """What became of one object.

    Attributes:
        problem: Why the archive does not hold it, as a code; empty where it does.
    """

    path: Path = field(repr=False)
    problem: str = ""


def word_of(status: int) -> str:
    """Return a status of C-STORE (PS3.4 table B.2-1) or STOW-RS (PS3.18 table I.2-2) in words; empty where it was stored.

    Warnings (B000 and those that follow) come with an object that was stored.
    """
    if status == 0 or status & 0xF000 == 0xB000:  # noqa: PLR2004 - the family of warnings
        return ""
    if status in _WORDS:
        return _WORDS[status]
    family = next((least for least, mask in _LEAST.items() if status & mask == least), None)
    return _WORDS[family] if family is not None else f"status_{status:04X}"
