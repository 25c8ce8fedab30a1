"""Values of a header as they should have been written: text, identifiers, numbers, whatever VR the file gives them."""

import math
import re
import unicodedata
from functools import lru_cache

from hilum.client.intake.headers.tags import Value
from hilum.client.intake.reasons import Reason, Skip

_TIME = re.compile(
    r"(\d\d):?(?:(\d\d):?(?:(\d\d(?:\.\d{1,6})?))?)?"
)  # PS3.5 table 6.2-1, with the colons of ACR-NEMA
_PLAIN_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
BLANKS = " \0\t\r\n\f\v"


def text_of(value: Value) -> str:
    """Return one string of what should be one string."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip(BLANKS)
    return _joined(value).strip(BLANKS)


def identifier_of(value: Value) -> str:
    """Return an identifier, such as a patient's, without the padding around it.

    Blanks before and behind a value of VR LO are no part of it (PS3.5 section 6.2), and writers pad with NUL too. Case
    is a part of it.
    """
    if isinstance(value, tuple):
        parts = [str(one).strip(BLANKS) for one in value]
        while parts and not parts[-1]:
            parts.pop()
        value = str(parts) if len(parts) > 1 else "".join(parts)
    if value is None:
        return ""
    text = (value if isinstance(value, str) else _joined(value)).strip().strip(BLANKS)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _joined(value: Value) -> str:
    if value is None:
        return ""
    return str(list(value)) if isinstance(value, tuple) else str(value)


def code_word(value: Value) -> str:
    """Return a code (VR CS) in upper case; empty where it is no single one."""
    return value.strip().upper() if isinstance(value, str) else ""


@lru_cache(maxsize=1024)
def words_of(value: Value) -> tuple[str, ...]:
    """Return all values of an attribute as words in upper case."""
    if value is None:
        return ()
    return tuple(
        str(word).strip(BLANKS).upper() for word in (value if isinstance(value, tuple) else (value,))
    )


def plain_number(value: str | float) -> float | None:
    """Return a finite number, also where it is written as text (another VR than the standard's); else None."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        text = value.strip(BLANKS)
        value = float(text) if _PLAIN_NUMBER.fullmatch(text) else math.nan
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def values_of(value: Value) -> tuple[str | int | float, ...]:
    """Return all values of an attribute; none where it is absent or empty. Long text (VR UT) is not parted by pydicom."""
    if value is None:
        return ()
    if isinstance(value, str):
        if "\\" in value:
            return tuple(value.split("\\"))
        return (value,) if value.strip(BLANKS) else ()
    if isinstance(value, tuple):
        return () if len(value) == 1 and str(value[0]).strip(BLANKS) == "" else value
    return (value,)


def numbers_of(value: Value, count: int) -> tuple[float, ...] | None:
    """Return the first `count` values; None where the attribute is absent or empty.

    Raises:
        Skip: If it is there but no list of finite numbers that long.
    """
    if value is None or not (values := values_of(value)):
        return None
    numbers = tuple([number for one in values[:count] if (number := plain_number(one)) is not None])
    if len(numbers) < count:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return numbers


def exactly(value: Value, count: int) -> tuple[float, ...] | None:
    """Return the values of an attribute that has `count` of them; None where it is absent or empty.

    Raises:
        Skip: If it is there but no list of just so many finite numbers.
    """
    if value is None:
        return None
    if len(values_of(value)) > count:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return numbers_of(value, count)


shared_exactly = lru_cache(maxsize=1024)(exactly)


def number_or(value: Value, default: float) -> float:
    """Return one finite number, or the default where the attribute is absent or empty.

    Raises:
        Skip: If it is there but no such number.
    """
    numbers = numbers_of(value, 1)
    return default if numbers is None else numbers[0]


def optional_number(value: Value) -> float | None:
    """Return one finite number, or None: of an attribute that an image can do without."""
    if value is None:
        return None
    values = values_of(value)
    return plain_number(values[0]) if len(values) == 1 else None


def optional_whole(value: Value) -> int | None:
    """Return one whole number, or None: of an attribute that an image can do without."""
    if value is None or type(value) is int:
        return value
    number = optional_number(value)
    return int(number) if number is not None and number.is_integer() else None


def first_number(value: Value) -> float | None:
    """Return the first of several values, or None: of an attribute that an image can do without."""
    if value is None:
        return None
    values = values_of(value)
    return plain_number(values[0]) if values else None


def whole_number(value: Value) -> int | None:
    """Return a whole number, told once or several times; None where it is absent.

    Raises:
        Skip: If it is anything else.
    """
    if value is None or type(value) is int:
        return value
    numbers = {plain_number(one) for one in values_of(value)}
    if not numbers:
        return None
    number = numbers.pop()
    if numbers or number is None or not number.is_integer():
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    return int(number)


def seconds(value: Value) -> float | None:
    """Return a time of day (VR TM) in seconds after midnight, or None where it is absent or malformed."""
    found = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    hours, minutes, rest = found.groups("0")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)
