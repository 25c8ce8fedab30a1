"""What the first element of a data set shows of its encoding: transfer syntaxes lie (PS3.5 sections 7.1 and 7.3)."""

from typing import NamedTuple

from hilum.client.intake.headers.element_headers import LONG_VRS, SHORT_VRS
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NATIVE,
)

HEAD_BYTES = 8
_VRS = frozenset(vr.encode() for vr in LONG_VRS | SHORT_VRS)


class Shown(NamedTuple):
    """How elements are written.

    Attributes:
        implicit: No value representations are written.
        little: Least significant byte first.
    """

    implicit: bool
    little: bool


def declared_encoding(syntax: str) -> Shown:
    """Return what a transfer syntax says; without one, the default of the standard (PS3.5 section 10.1)."""
    return Shown(implicit=syntax in (IMPLICIT_LITTLE, ""), little=syntax != EXPLICIT_BIG)


def shown_encoding(head: bytes, syntax: str) -> Shown:
    """Return what the first eight bytes of a data set show; what they leave open is as the syntax says.

    The first group of an image is below 0100, so of its two bytes one is 0, and which one tells the byte order. In
    explicit VR two letters follow the tag; as a length, which stands there otherwise, they would be odd or thousands.
    """
    declared = declared_encoding(syntax)
    if len(head) < HEAD_BYTES:
        return declared
    low, high = head[0], head[1]
    little = high == 0 if (low == 0) != (high == 0) else declared.little
    return Shown(implicit=head[4:6] not in _VRS, little=little)


def effective_syntax(syntax: str, shown: Shown) -> str:
    """Return the syntax that the pixels are read by: of native pixels, the one that the encoding shows.

    Raises:
        Skip: If that is none of the standard's: most significant byte first without value representations.
    """
    if syntax and syntax not in NATIVE - {DEFLATED}:
        return syntax
    if shown.implicit and not shown.little:
        raise Skip(Reason.UNSUPPORTED_SYNTAX)
    if shown.implicit:
        return IMPLICIT_LITTLE
    return EXPLICIT_LITTLE if shown.little else EXPLICIT_BIG
