"""Class names as coded concepts (PS3.3 section 8.8): standard ones where the name is a code, else codes of the private scheme 99HILUM.

A catalogue calls a class by the code that an object had, such as `SCT:39607008`, with `+SCT:24028007` where a side narrows it.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

from hilum.client.intake.formats.naming import Code

PRIVATE = "99HILUM"
_MAX_VALUE, _MAX_MEANING = 16, 64  # characters of SH and LO (PS3.5 section 6.2)
_PLAIN = re.compile(r"[A-Za-z0-9 .:/_+()-]+")


@dataclass(frozen=True)
class Concept:
    """A class as DICOM names it.

    Attributes:
        modifier: What narrows it, or None.
    """

    code: CodedConcept
    modifier: CodedConcept | None = None

    @property
    def meaning(self) -> str:
        """In words."""
        return str(self.code.CodeMeaning)


def concept_of(name: str) -> Concept:
    """Return the concept of a class."""
    codes_in = [_standard(part) for part in name.split("+")]
    if len(codes_in) > 2 or any(one is None for one in codes_in):  # noqa: PLR2004 - a concept and its modifier
        return Concept(private_code(name))
    code, *rest = (_coded(one) for one in codes_in if one is not None)
    return Concept(code, rest[0] if rest else None)


def private_code(name: str) -> CodedConcept:
    """Return a code of Hilum's own scheme: the name itself where a code value may be it, else a digest of it."""
    text = " ".join(name.split())
    short = len(text) <= _MAX_VALUE and _PLAIN.fullmatch(text) is not None
    value = text if short else hashlib.sha256(text.encode()).hexdigest()[:_MAX_VALUE]
    return CodedConcept(value, PRIVATE, text[:_MAX_MEANING].replace("\\", "/"))


def private_scheme() -> list[CodingSchemeIdentificationItem]:
    """Return what an object says of the scheme 99HILUM (PS3.3 section C.12.1.1)."""
    return [
        CodingSchemeIdentificationItem(
            designator=PRIVATE, name="Names that a site or a study gave", responsible_organization="Hilum"
        )
    ]


def _standard(text: str) -> Code | None:
    scheme, _, value = text.partition(":")
    code = Code(scheme, value)
    return code if code.standard else None


def _coded(code: Code) -> CodedConcept:
    meaning = _meanings(code.scheme).get(code.value, code.written)
    return CodedConcept(code.value, code.scheme, meaning[:_MAX_MEANING])


@cache
def _meanings(scheme: str) -> dict[str, str]:
    """Return what each code of a scheme is called, as far as pydicom's copy of PS3.16 has it."""
    dictionary = getattr(codes, scheme, None)
    found: dict[str, str] = {}
    for name in dir(dictionary) if dictionary is not None else ():
        try:
            code = getattr(dictionary, name)
            found.setdefault(code.value, code.meaning)
        except (AttributeError, RuntimeError):  # a method of it, or a name that stands for several codes
            continue
    return found
