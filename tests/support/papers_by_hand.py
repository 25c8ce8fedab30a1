"""Papers by hand, and what a test asks of one."""

import stat

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from hilum.common.security.keys import new_key


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind).value


def by_sentence(value):
    """The name of a case: keys and requests are made anew each time, and no name."""
    return value if isinstance(value, str) else ""


def stored(key, password=None, form=PrivateFormat.PKCS8):
    hidden = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, hidden)


RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
P384 = new_key()
