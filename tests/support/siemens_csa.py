"""The private header of a Siemens mosaic."""

import struct


def csa(tags, *, second=True):
    """A CSA header of version 1 or 2 as Siemens writes it."""
    raw = b"SV10\x04\x03\x02\x01" if second else b""
    raw += struct.pack("<2I", len(tags), 77)
    base = max(len(values) for values in tags.values()) if not second else 0
    for number, (name, values) in enumerate(tags.items()):
        items = base if number == 0 and not second else len(values)
        raw += struct.pack("<64si4s3i", name.encode(), len(values), b"DS\0\0", 3, items, 77)
        for value in (*values, *[""] * (items - len(values))):
            text = value.encode() + b"\0" if value else b""
            raw += struct.pack("<4i", len(text) + base, len(text), 77, 0)
            raw += text + b"\0" * (-len(text) % 4)
    return raw
