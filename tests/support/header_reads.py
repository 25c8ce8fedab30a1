"""What tests make of a file's header, read in both ways."""

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from hilum.client.intake.headers.read_instance import NeedsPydicom, read_instance, read_with_pydicom, walk
from hilum.client.intake.reasons import Skip

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, MR, SR = STORAGE + "2", STORAGE + "4", STORAGE + "88.33"
US, ENHANCED_MR, SC = STORAGE + "6.1", STORAGE + "4.1", STORAGE + "7"
RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 16


def outcome(read, path):
    try:
        return read(path)
    except Skip as skip:
        return skip.reason, skip.uids


def both_ways(path):
    """The walker's answer, which must be pydicom's; pydicom's where the walker has none."""
    slow, fast = outcome(read_with_pydicom, path), outcome(walk, path)
    assert isinstance(fast, NeedsPydicom) or fast == slow
    assert outcome(read_instance, path) == slow
    return slow


def replace_syntax(path, new):
    """Rewrite the transfer syntax of an explicit little endian file, and nothing else."""

    def element(uid):
        value = uid.encode() + b"\0" * (len(uid) % 2)
        return b"\x02\0\x10\0UI" + len(value).to_bytes(2, "little") + value

    data = path.read_bytes()
    assert data.count(element(ExplicitVRLittleEndian)) == 1
    path.write_bytes(data.replace(element(ExplicitVRLittleEndian), element(new)))
