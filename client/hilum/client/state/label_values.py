"""What a cell of a label table means: no label, a number, a word; and which cells may be two spellings of one class.

**Read as one**: blanks around and inside, quotes around a cell, invisible characters, composed and decomposed letters
(Unicode NFC), and numbers of equal value (`1`, `1.0`, `01`). **Refused**, with the spellings: whatever else looks alike,
such as case, hyphens, accents, wide letters, or two words for yes.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

from hilum.common.errors import LabelError

_MISSING_WORDS = r"""
    na, n/a, n.a., n.a, nan, -nan, nat, null, nil, none, missing, unknown, undefined, unlabelled, unlabeled, not available,
    not applicable, #n/a, #na, #n/a n/a, #null!, #value!, #ref!, #div/0!, #num!, #name?, <na>, <nan>, <null>, 1.#ind,
    -1.#ind, 1.#qnan, -1.#qnan, -, --, ---, ?, ??, ???, ., .., ..., na., [na], (na), n / a, (n/a), [n/a], (null), [null],
    \n, unk, no data, n.d.
"""
MISSING = frozenset(word.strip() for word in _MISSING_WORDS.split(","))
"""Cells that say that there is no label, in any case, beside those that are empty or blank."""

MAX_CLASSES = 20
"""More different numbers than these are a quantity, not classes."""
_FEW = 6
"""Fewer different values than these are taken for classes, however few patients share one."""

_NUMBER = re.compile(r"[+-]?(\d{1,25}(\.\d{0,25})?|\.\d{1,25})(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_MARKED = re.compile(r"[+-]?\d+([,'\u2019 ]\d+)+(\.\d+)?", re.ASCII)
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060\u00ad\u200e\u200f"))
_QUOTES = "\"'\u2018\u2019\u201c\u201d\u00ab\u00bb`"
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
# Cyrillic and Greek letters that look like Latin ones.
_LOOKALIKES = str.maketrans("аеорсухікмнтвαενορτυχικ", "aeopcyxikmhtbaevoptuxik")
_SAME_WORDS = (
    frozenset({"1", "yes", "y", "true", "t", "positive", "pos", "+"}),
    frozenset({"0", "no", "n", "false", "f", "negative", "neg"}),
)
_SHOWN_GROUPS, _SHOWN_LETTERS = 5, 40


def tidy(cell: str) -> str:
    """Return a cell without what nobody sees: blanks around it, more than one inside, invisible characters, quotes around it."""
    text = " ".join(unicodedata.normalize("NFC", cell.translate(_INVISIBLE)).split())
    while len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return "" if text in set(_QUOTES) else text


def is_missing(cell: str) -> bool:
    """Tell whether a cell says that there is no label; see `MISSING`."""
    text = unicodedata.normalize("NFKC", tidy(cell)).translate(_DASHES).casefold()
    return not text or text in MISSING


def class_of(cell: str) -> str | None:
    """Give the class that a cell names, None for no label. Numbers of equal value are one class."""
    if is_missing(cell):
        return None
    text = tidy(cell)
    return number_text(text) or text


def number_text(text: str) -> str | None:
    """Give a number in its shortest form, such as `1` for `01.0`; None for what is not a number."""
    if not _NUMBER.fullmatch(text):
        return None
    value = Decimal(text)
    if value == value.to_integral_value():
        return f"{value.to_integral_value() or Decimal(0):f}"  # no -0
    return f"{value:f}".rstrip("0")


def alike(name: str) -> str:
    """Give what two spellings of one class have in common; different for what is surely different."""
    if number_text(name) == name:
        return name
    text = unicodedata.normalize("NFKC", name).casefold().translate(_DASHES).translate(_LOOKALIKES)
    text = "".join(
        letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter)
    )
    text = re.sub(rf"[\s_\-{re.escape(_QUOTES)}]+", "", text).rstrip(".,;:")
    return number_text(text) or text or name


def spellings(counts: Mapping[str, int]) -> list[list[str]]:
    """Group names that may be one class; a name that is alone in its group is left out."""
    groups: dict[str, list[str]] = {}
    for name in sorted(counts):
        groups.setdefault(alike(name), []).append(name)
    for words in _SAME_WORDS:
        same = [key for key in groups if key in words]
        if len(same) > 1:
            groups[same[0]] = [name for key in same for name in groups.pop(key)]
    return [group for group in groups.values() if len(group) > 1]


def check_spellings(column: str, cells: Mapping[str, int]) -> None:
    """Refuse a column in which one class may be spelled in several ways.

    Args:
        column: Its name.
        cells: How often each cell occurs, as it stands in the table.

    Raises:
        LabelError: With the spellings.
    """
    missing = [cell for cell in cells if is_missing(cell)]
    named: Counter[str] = Counter()
    for cell, count in cells.items():
        if (name := class_of(cell)) is not None:
            named[name] += count
    marked = {name: count for name, count in named.items() if _MARKED.fullmatch(name)}
    if marked:
        raise LabelError(
            f"the column `{column}` has numbers with a comma, a blank or an apostrophe inside; write them with a decimal "
            "point, and without marks for thousands",
            _shown(marked, [list(marked)[:_SHOWN_GROUPS]]),
        )
    if "+" in named and any(tidy(cell).translate(_DASHES) == "-" for cell in missing):
        raise LabelError(
            f"the column `{column}` has `+` as a class, and `-`, which is read as no label; write `positive` and `negative`"
        )
    groups = spellings(named)
    if groups:
        raise LabelError(
            f"the column `{column}` spells what may be one class in several ways; write each class in one way",
            _shown(named, groups),
        )


def check_is_classes(column: str, patients: Mapping[str, int]) -> None:
    """Refuse a column whose values are not classes: a quantity, a date, a free text.

    Args:
        column: Its name.
        patients: How many patients have each class.

    Raises:
        LabelError: With the number of different values, and what to do instead.
    """
    different, total = len(patients), sum(patients.values())
    numbers = [name for name in patients if number_text(name) == name]
    rare = different >= _FEW and 2 * different > total
    finely = len(numbers) > MAX_CLASSES or any("." in name for name in numbers)
    if len(numbers) >= _FEW and (finely or (rare and 2 * len(numbers) > different)):
        raise LabelError(
            f"the column `{column}` holds {len(numbers)} different numbers of {total} patients: a quantity, not classes; "
            "write the range that each number falls in (such as `under 50` and `50 and over`) into a column of its own and "
            "name that in tasks.classification.label, or predict the number itself by [tasks.regression]"
        )
    if rare:
        raise LabelError(
            f"the column `{column}` holds {different} different values of {total} patients, so hardly two patients share "
            "one: these are not classes; name another column in tasks.classification.label"
        )


def check_is_numbers(column: str, cells: Mapping[str, int], *, most: float) -> None:
    """Refuse a column that holds anything but numbers.

    Args:
        column: Its name.
        cells: How often each value occurs, as `class_of` gives it.
        most: How large a number may be.

    Raises:
        LabelError: With what is not a number, or how many are too large.
    """
    words = {cell: count for cell, count in cells.items() if number_text(cell) is None}
    if words:
        raise LabelError(
            f"the column `{column}` holds {sum(words.values())} values that are not numbers, of {sum(cells.values())}; write "
            "numbers with a decimal point and without a unit, and leave a cell empty where there is none",
            _shown(words, [list(words)[:_SHOWN_GROUPS]]),
        )
    large = sum(count for cell, count in cells.items() if abs(float(cell)) > most)
    if large:
        raise LabelError(
            f"the column `{column}` holds {large} numbers beyond {most:g}; write them in a larger unit"
        )


def _shown(counts: Mapping[str, int], groups: list[list[str]]) -> str:
    """Return the first groups with how often each name occurs: `'Yes' (4), 'yes' (2); ...`."""
    words = [
        ", ".join(f"{_quoted(name)} ({counts[name]})" for name in group[:_SHOWN_GROUPS])
        for group in groups[:_SHOWN_GROUPS]
    ]
    more = len(groups) - _SHOWN_GROUPS
    return "; ".join(words) + (f"; and {more} more" if more > 0 else "")


def _quoted(name: str) -> str:
    """Return a name as Python would write it, so that what can't be seen is seen, and cut where it is long."""
    return ascii(name) if not name.isprintable() else f"'{name[:_SHOWN_LETTERS]}'"
