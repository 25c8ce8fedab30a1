"""Templates of headers: files of one scanner have the same heads in the same order.

A template that was met a few times is kept as the bytes of all its heads, and the gaps between them where the values lie
(PS3.5 section 7.1), so that one comparison stands for tens of steps. It holds exactly where the steps would go the same
way: the heads are compared whole, so nothing is assumed of a file. Heads hold no value, hence no identifier.
"""

from itertools import takewhile
from struct import Struct
from typing import NamedTuple

from hilum.client.intake.headers.parsing import Parse

Wanted = tuple[int, str, Parse]
"""Tag, keyword, and what parses the value."""

MAX_BYTES, MAX_HEADS = 4_096, 256
"""How much a template takes in at most."""

_OFTEN, _MISSES = 4, 4
_MIN_HEADS = 2

_MAX_TEMPLATES, _MAX_KEYS = 2_048, 8_192
_MAX_TRIES = 4_096  # then what is known must do: no file can keep the learning busy


Token = tuple[bytes, int]
"""The head of an element, or a delimiter, and how many bytes of value follow."""


class Part(NamedTuple):
    """One element, or a whole sequence.

    Attributes:
        tokens: What it is made of.
        wanted: What is wanted of the value, if it is an element.
    """

    tokens: tuple[Token, ...]
    wanted: Wanted | None = None


class HeaderTemplate:
    """Parts that follow one another.

    Attributes:
        size_bytes: Of all of them.
        heads_at: Given bytes and a position, takes from there what are heads in this template.
        heads: What that must give.
        values_at: Likewise, takes the wanted values.
        taken: Keyword and parser of these, in their order.
        first: The tag of the first of them; 0 without any.
        last: The tag of the last.
        parts: What it is made of.
        misses: How often its first head stood there and the others did not.
    """

    __slots__ = (
        "first", "heads", "heads_at", "last", "misses", "parts", "size_bytes", "taken", "values_at",
    )  # fmt: skip

    def __init__(self, parts: list[Part]) -> None:
        tokens = [token for part in parts for token in part.tokens]
        wanted = [part.wanted for part in parts if part.wanted is not None]
        heads = Struct("".join([f"{len(head)}s{value_bytes}x" for head, value_bytes in tokens]))
        self.size_bytes = heads.size
        self.heads_at = heads.unpack_from
        self.heads = tuple([head for head, _ in tokens])
        self.values_at = Struct("".join(map(_values_format, parts))).unpack_from
        self.taken = tuple((keyword, parse) for _tag, keyword, parse in wanted)
        self.first, self.last = (wanted[0][0], wanted[-1][0]) if wanted else (0, 0)
        self.parts = parts
        self.misses = 0


def _values_format(part: Part) -> str:
    kind = "x" if part.wanted is None else "s"
    return "".join([f"{len(head)}x{value_bytes}{kind}" for head, value_bytes in part.tokens])


class HeaderTemplates:
    """The templates of one encoding, by the head that they begin with.

    Attributes:
        known: Those that were learnt.
        hopeless: Heads that no template worth its name begins with.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, HeaderTemplate] = {}
        self.hopeless: set[bytes] = set()
        self._met: dict[bytes, int] = {}
        self._tries = 0

    def met(self, key: bytes) -> bool:
        """Count a head that no template is known of. True if one is to be learnt now."""
        if len(self._met) + len(self.hopeless) >= _MAX_KEYS:
            self._met.clear()
            self.hopeless.clear()
        count = self._met[key] = self._met.get(key, 0) + 1
        return count >= _OFTEN and self._tries < _MAX_TRIES

    def missed(self, key: bytes) -> bool:
        """Count that a template did not match where its first head stood. True if it is to be learnt again."""
        template = self.known[key]
        template.misses += 1
        return template.misses >= _MISSES and self._tries < _MAX_TRIES

    def learn(self, key: bytes, parts: list[Part]) -> None:
        """Keep a template, or what it has in common with the one that was known: what varies ends it."""
        self._tries += 1
        template = self.known.pop(key, None)
        if template is not None:
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(template.parts, parts, strict=False))
            parts = [part for part, _ in alike]
        self._met.pop(key, None)
        if sum(len(part.tokens) for part in parts) < _MIN_HEADS:
            self.hopeless.add(key)
            return
        if len(self.known) >= _MAX_TEMPLATES:
            self.known.clear()
        self.known[key] = HeaderTemplate(parts)
