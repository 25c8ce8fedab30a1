"""Past a sequence of undefined length, item by item (PS3.5 section 7.5), without recursion."""

from struct import error as StructError

from pydicom.datadict import dictionary_VR

from hilum.client.intake.headers.element_headers import (
    HEAD_BYTES,
    LONG,
    LONG_HEAD_BYTES,
    UNDEFINED,
    Encoding,
    EndOfWindow,
    implicit_head,
    u32,
)
from hilum.client.intake.headers.header_templates import MAX_BYTES, MAX_HEADS, Part, Token
from hilum.client.intake.headers.parsing import UncertainValue, check_sets

_MAX_DEPTH = 32
_CHARACTER_SET = 0x0008_0005
_ITEM, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E0DD
_ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
_IN_SEQUENCE, _IN_OPEN_ITEM = -2, -1  # other levels are items of known length: where they end
_OPENED = (_IN_SEQUENCE, _IN_OPEN_ITEM)
_OPEN_ITEM = (
    b"\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"  # a sequence's length, and the head of its item
)
_CLOSED_ITEM = _ITEM_END + b"\xfe\xff\xdd\xe0\0\0\0\0"
_SETS_OF_TEXT = b"\x08\x00\x05\x00"  # (0008,0005): its value matters wherever it stands


def sequence_end(data: bytes, p: int, encoding: Encoding) -> int:
    """Return where a sequence of undefined length ends.

    Args:
        data: Bytes of a file.
        p: Where its first item is to stand.
        encoding: How elements are written.

    Raises:
        EndOfWindow: If the data ends first.
        StructError: Likewise.
        UncertainValue: If it is broken, or says something about text that the walker is not sure of.
    """
    levels, plain, templates = [_IN_SEQUENCE], encoding.heads.plain, encoding.templates
    known, hopeless, end = templates.known, templates.hopeless, len(data)
    while levels:
        level = levels[-1]
        if level == _IN_SEQUENCE or p >= level >= 0:
            p = _step(data, p, encoding, levels)
            continue
        key = data[p : p + 8]
        run = known.get(key)
        if run is not None and p + run.size_bytes <= end and run.heads_at(data, p) == run.heads:
            p += run.size_bytes
        elif key not in hopeless and learn(data, p, key, encoding):
            continue
        elif step := plain.get(key):
            p += step
        elif key[4:6] == b"SQ" and data[p + 8 : p + 20] == _OPEN_ITEM and len(levels) < _MAX_DEPTH:
            levels += _OPENED
            p += len(_OPEN_ITEM) + 8
        elif level == _IN_OPEN_ITEM and data[p : p + 16] == _CLOSED_ITEM:
            del levels[-2:]
            p += len(_CLOSED_ITEM)
        else:
            p = _step(data, p, encoding, levels)
    return p


def _step(data: bytes, p: int, encoding: Encoding, levels: list[int]) -> int:
    """Return one step on: past an element or a delimiter, or out of an item that ends here."""
    level = levels[-1]
    if level == _IN_SEQUENCE:
        return _item_or_end(data, p, levels)
    if level >= 0 and p >= level:
        if p > level:
            raise UncertainValue
        levels.pop()
        return p
    step, special = encoding.heads[data[p : p + 8]]
    if step:
        if special is not None and special[0] == _CHARACTER_SET:
            check_sets(special[2](data[p + 8 : p + step]))
        return p + step
    if special is LONG:
        length: int = u32(data, p + 8)[0]
        if length != UNDEFINED:
            return p + LONG_HEAD_BYTES + length
    return _special_inside(data, p, encoding, levels)


def learn(data: bytes, p: int, key: bytes, encoding: Encoding) -> bool:
    """Learn the run that begins here, if its first head was met often, or missed often. True if it was learnt."""
    templates = encoding.templates
    if key in templates.known:
        if p + templates.known[key].size_bytes > len(data) or not templates.missed(key):
            return False
    elif key in templates.hopeless or len(key) < HEAD_BYTES or not templates.met(key):
        return False
    templates.learn(key, _parts(data, p, encoding))
    return key in templates.known


def _parts(data: bytes, p: int, encoding: Encoding) -> list[Part]:
    """Return what follows, as far as it is elements that may come just so again."""
    found: list[Part] = []
    last, room, limit = 0, MAX_HEADS, min(p + MAX_BYTES, len(data))
    try:
        while (step := _part(data, p, encoding)) is not None:
            part, p = step
            room -= len(part.tokens)
            if p > limit or room < 0:
                break
            if part.wanted is not None:
                if part.wanted[0] <= last:
                    break
                last = part.wanted[0]
            found.append(part)
    except (UncertainValue, EndOfWindow, StructError):
        pass  # what could be taken in is what counts
    return found


def _part(data: bytes, p: int, encoding: Encoding) -> tuple[Part, int] | None:
    """Return one element or one whole sequence, and where it ends; None where neither begins that is always the same."""
    key = data[p : p + 8]
    step, wanted = encoding.heads[key]
    if step:
        return None if key[:4] == _SETS_OF_TEXT else (Part(((key, step - HEAD_BYTES),), wanted), p + step)
    if wanted is not LONG:
        return None
    q = p + LONG_HEAD_BYTES
    length = u32(data, p + 8)[0]
    if length != UNDEFINED:
        return Part(((data[p:q], length),)), q + length
    if key[4:6] != b"SQ":
        return None
    tokens, end = _tokens(data, q, encoding)
    if any(head[:4] == _SETS_OF_TEXT for head, _ in tokens):
        return None
    return Part(((data[p:q], 0), *tokens)), end


def _tokens(data: bytes, p: int, encoding: Encoding) -> tuple[list[Token], int]:
    """Return what a sequence of undefined length is made of, and where it ends.

    Raises:
        UncertainValue: If it is longer than any run.
    """
    levels, limit = [_IN_SEQUENCE], p + MAX_BYTES
    tokens: list[Token] = []
    while levels:
        start, p = p, _step(data, p, encoding, levels)
        if p > limit or len(tokens) >= MAX_HEADS:
            raise UncertainValue
        if p > start:
            tokens.append(encoding.token(data, start, p))
    return tokens, p


def _item_or_end(data: bytes, p: int, levels: list[int]) -> int:
    """Between items: one opens, or the sequence closes."""
    group, element, length = implicit_head(data, p)
    tag = group << 16 | element
    if tag == _ITEM and len(levels) < _MAX_DEPTH:
        levels.append(_IN_OPEN_ITEM if length == UNDEFINED else p + 8 + length)
    elif tag == _SEQUENCE_END and length == 0:
        levels.pop()
    else:
        raise UncertainValue
    return p + 8


def _special_inside(data: bytes, p: int, encoding: Encoding, levels: list[int]) -> int:
    """Inside an item: a sequence of undefined length opens, the item closes, or a plain element is skipped."""
    if data[p : p + 8] == _ITEM_END and levels[-1] == _IN_OPEN_ITEM:
        levels.pop()
        return p + 8
    if p + LONG_HEAD_BYTES > len(data):
        raise EndOfWindow
    tag, vr, q, length = encoding.whole_head(data, p)
    if length != UNDEFINED:
        return q + length
    if vr not in ("SQ", "") or (vr == "" and not is_sequence(tag, data, q)):
        raise UncertainValue
    levels.append(_IN_SEQUENCE)
    return q


def is_sequence(tag: int, data: bytes, q: int) -> bool:
    """Tell whether an element of implicit VR and undefined length is one: by the dictionary, else by its first item."""
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return bool(tag >> 16 & 1) and data[q : q + 4] == b"\xfe\xff\x00\xe0"
