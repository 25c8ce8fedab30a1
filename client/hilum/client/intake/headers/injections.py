"""How many injections Radiopharmaceutical Information Sequence (0054,0016) tells of, and of a single one what (PS3.3 C.8.9.2)."""

from collections.abc import Mapping
from functools import lru_cache

from hilum.client.intake.headers.element_headers import (
    LONG_HEAD_BYTES,
    UNDEFINED,
    Encoding,
    implicit_head,
    wanted_of,
)
from hilum.client.intake.headers.parsing import UncertainValue
from hilum.client.intake.headers.pet_tags import NAME_OF_INJECTIONS, OF_INJECTION
from hilum.client.intake.headers.sequences import is_sequence, sequence_end
from hilum.client.intake.headers.tags import Value

_ITEM, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E0DD
_ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
_HEAD_BYTES = 8
_BEYOND = bytes(LONG_HEAD_BYTES)  # a head is read whole, also where the last value is shorter than that


@lru_cache(maxsize=256)
def injections_of(sequence: bytes, encoding: Encoding) -> Mapping[str, Value]:
    """Return what the tags of a PET image hold of its injections: the same for all slices of a series.

    Args:
        sequence: The bytes of all its items.
        encoding: How elements are written.

    Raises:
        UncertainValue: If it is not plain how pydicom would read it.
        EndOfWindow: If a sequence inside goes beyond the data.
        StructError: Likewise.
    """
    items: list[dict[str, Value]] = []
    p, end, data = 0, len(sequence), sequence + _BEYOND
    while p < end:
        group, element, length = implicit_head(data, p)
        tag, p = group << 16 | element, p + _HEAD_BYTES
        if tag == _SEQUENCE_END and length == 0 and p == end:
            break
        if tag != _ITEM:
            raise UncertainValue
        values, p = _item(data, p, end if length == UNDEFINED else p + length, length == UNDEFINED, encoding)
        items.append(values)
    if p != end:
        raise UncertainValue
    return told(items)


def told(items: list[dict[str, Value]]) -> dict[str, Value]:
    """Return the tags of these items: the values of several would be none's."""
    return {NAME_OF_INJECTIONS: len(items), **(items[0] if len(items) == 1 else {})}


def _item(data: bytes, p: int, end: int, delimited: bool, encoding: Encoding) -> tuple[dict[str, Value], int]:
    values: dict[str, Value] = {}
    last = 0
    while p < end:
        if delimited and data[p : p + _HEAD_BYTES] == _ITEM_END:
            return values, p + _HEAD_BYTES
        tag, vr, q, length = encoding.whole_head(data, p)
        if tag <= last:
            raise UncertainValue
        last = tag
        if length == UNDEFINED:
            if tag in OF_INJECTION or vr not in ("SQ", "") or (vr == "" and not is_sequence(tag, data, q)):
                raise UncertainValue
            p = sequence_end(data, q, encoding)
            continue
        p = q + length
        wanted = wanted_of(tag, vr or _vr(tag), length, OF_INJECTION)
        if wanted is not None and p <= end:
            _tag, keyword, parse = wanted
            values[keyword] = parse(data[q:p])
    if delimited or p != end:
        raise UncertainValue
    return values, p


def _vr(tag: int) -> str:
    return OF_INJECTION[tag][1] if tag in OF_INJECTION else ""
