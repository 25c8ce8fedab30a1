"""UIDs of what is written, derived from what it says: the same prediction of the same model has the same UIDs.

So an archive that was sent a prediction twice holds it once. Other contents have another UID, as PS3.5 chapter 9 asks for: the model,
the images and what is said of them are all in it. The time of writing is not, so a file that is written again differs in its dates.
"""

import hashlib
import json
from typing import Any

_BITS = 128


def derived_uid(kind: str, *facts: Any) -> str:
    """Return a UID under 2.25 (PS3.5 section B.2) that depends on these facts alone.

    Args:
        kind: Of the object that is named.
        facts: What JSON takes.
    """
    text = json.dumps(["hilum", kind, *facts], sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[: _BITS // 8], "big")
    # Such a number counts as a UUID of version 8, whose bits RFC 9562 leaves to the one who makes it.
    number = (number & ~(0xF << 76)) | (0x8 << 76)
    number = (number & ~(0x3 << 62)) | (0x2 << 62)
    return f"2.25.{number}"
