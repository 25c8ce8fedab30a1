"""From how a table writes a file's name to how the disk has it.

A name on disk is bytes. What of it is not UTF-8 comes as surrogates (PEP 383), and so it does from a table that is read in
the same way: equal bytes are equal names.
"""

import unicodedata
from collections.abc import Iterator

from hilum.client.state.labels import relative_name


def spellings(text: str) -> Iterator[str]:
    """Return the names on disk that a table may mean by a text, the likeliest first; some of them more than once.

    As it is written; with forward slashes and no blanks around it; composed or decomposed, as macOS writes; and from a
    table in Latin-1 to a disk in UTF-8, or the other way round.
    """
    for form in (text, relative_name(text)):
        yield form
        yield unicodedata.normalize("NFC", form)
        yield unicodedata.normalize("NFD", form)
        if any(map(_is_byte, form)):
            yield "".join(chr(ord(one) - _FIRST_BYTE) if _is_byte(one) else one for one in form)
        elif all(ord(one) <= _LAST_LATIN for one in form):
            yield form.encode("latin-1").decode(errors="surrogateescape")


def _is_byte(letter: str) -> bool:
    """Tell whether a letter stands for a byte that is not UTF-8."""
    return "\udc80" <= letter <= "\udcff"


_FIRST_BYTE, _LAST_LATIN = 0xDC00, 0xFF
