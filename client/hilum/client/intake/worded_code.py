"""Codes that are stored and counted, each with what it means to the person at the site."""

from enum import StrEnum
from typing import Self


class WordedCode(StrEnum):
    """A member is its code; `meaning` says it in words."""

    meaning: str

    def __new__(cls, code: str, meaning: str = "") -> Self:
        """Make a member; the class called with a code finds it again by that alone."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member
