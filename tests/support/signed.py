"""Signs studies as a federation's admin does, and as an attacker would who writes the document by hand."""

import json
import secrets
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hilum.common import __version__
from hilum.common.config import StudyConfig
from hilum.common.signing import SignedStudy, sign_study

KEY = Ed25519PrivateKey.generate()
"""The admin's; `KEY.public_key()` is what the sites have pinned."""

STRANGER = Ed25519PrivateKey.generate()
_CONTEXT = b"hilum study 1\0"
_DAY_S = 86_400


def sign(
    study: StudyConfig, *, run="run", sites=None, days=1.0, now=None, start=None, key: Ed25519PrivateKey = KEY
) -> SignedStudy:
    """Sign a study for `site-0`, `site-1`, ... as many as it has, unless others are named."""
    names = sites or [f"site-{number}" for number in range(study.federation.sites)]
    return sign_study(study, run=run, sites=names, days=days, now=now or time.time(), start=start, key=key)


def sign_bytes(document: bytes, key: Ed25519PrivateKey = KEY) -> SignedStudy:
    """A valid signature over any bytes at all."""
    return SignedStudy(document, key.sign(_CONTEXT + document))


def sign_table(study: dict, *, key: Ed25519PrivateKey = KEY, **changes) -> SignedStudy:
    """A valid signature over a document that no honest admin's command would write."""
    now = int(time.time())
    table = {
        "kind": "hilum-study",
        "hilum": __version__,
        "run": "run",
        "sites": ["site-0", "site-1", "site-2"],
        "issued": now,
        "expires": now + _DAY_S,
        "nonce": secrets.token_hex(16),
        "study": study,
        **changes,
    }
    return sign_bytes(json.dumps(table).encode(), key)
