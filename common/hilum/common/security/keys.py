"""Private keys in files that their owner alone may read, and fingerprints that two people compare by telephone."""

import errno
import hashlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from hilum.common.errors import ConfigError
from hilum.common.files import sync_folder, write_bytes

MAX_PAPER_BYTES = 64 * 1024
"""The most that any key, request, certificate or link file has; a longer file is not read."""

SITE_CURVES = {"secp384r1": "P-384", "secp256r1": "P-256"}
_HUMAN = "an elliptic-curve key on P-384, as `hilum site enroll` makes it"


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key for a certificate: ECDSA on P-384."""
    return ec.generate_private_key(ec.SECP384R1())


def write_private_key(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    """Write a key as PKCS#8 for its owner alone; a file that is there is never replaced.

    Raises:
        ConfigError: If there is a file of this name, or the folder can't be written.
    """
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        try:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(aside, path)  # fails where `path` exists, and shows the whole key or none
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError:
        raise ConfigError(path.name, ["exists already; a key is never overwritten"]) from None
    except OSError as error:
        raise ConfigError(path.name, [cannot_write(error)]) from None


def cannot_write(error: OSError) -> str:
    """Tell in one sentence why a file could not be written."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    remedy = "make room there" if full else "name a folder that this user may write to"
    return f"can't be written ({error.strerror}); {remedy}"


def write_paper(path: Path, content: bytes) -> None:
    """Write what holds no secret, in one step, for its owner alone like all else.

    Raises:
        ConfigError: If the folder can't be written.
    """
    try:
        write_bytes(path, content, private=True)
    except OSError as error:
        raise ConfigError(path.name, [cannot_write(error)]) from None


def read_paper(path: Path, advice: str) -> bytes:
    """Read a key, request, certificate or link file, of bounded size.

    Raises:
        ConfigError: If it can't be read or is longer than such a file can be.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PAPER_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(path.name, [f"there is no such file; {advice}"]) from None
    except OSError as error:
        raise ConfigError(path.name, [f"can't be read ({error.strerror}); {advice}"]) from None
    if len(content) > MAX_PAPER_BYTES:
        raise ConfigError(path.name, [f"is longer than {MAX_PAPER_BYTES // 1024} KiB; {advice}"])
    return content


def read_site_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the key of a certificate.

    Raises:
        ConfigError: If it is missing, open to others, encrypted, of another kind, or not a key at all.
    """
    key = _read_private(path, f"expected {_HUMAN}")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in SITE_CURVES:
        raise ConfigError(path.name, [f"holds {kind_of(key)}; expected {_HUMAN}"])
    return key


def read_study_key(path: Path) -> ed25519.Ed25519PrivateKey:
    """Read the key that signs studies.

    Raises:
        ConfigError: If it is missing, open to others, encrypted, of another kind, or not a key at all.
    """
    expected = "an Ed25519 key, as `hilum admin init` makes it (study.key)"
    key = _read_private(path, f"expected {expected}")
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(path.name, [f"holds {kind_of(key)}; expected {expected}"])
    return key


def kind_of(key: object) -> str:
    """Name the kind of a public or private key, for people."""
    if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey):
        return f"an RSA key of {key.key_size} bits"
    if isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        return "an Ed25519 key"
    if isinstance(key, ed448.Ed448PublicKey | ed448.Ed448PrivateKey):
        return "an Ed448 key"
    if isinstance(key, dsa.DSAPublicKey | dsa.DSAPrivateKey):
        return "a DSA key"
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return f"an elliptic-curve key on {SITE_CURVES.get(key.curve.name, key.curve.name)}"
    return "a key of another kind"


def public_bytes(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    """Return a public key as DER SubjectPublicKeyInfo: equal bytes are equal keys."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(content: bytes) -> str:
    """Return the first 128 bits of SHA-256, in eight groups of four hex digits, to be read out and compared."""
    digits = hashlib.sha256(content).hexdigest()[:32]
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def _read_private(path: Path, expected: str) -> object:
    content = read_paper(path, expected)
    if path.stat().st_mode & 0o077:
        problem = (
            f"other users of this machine may read this private key; close it with `chmod 600 {path.name}`"
        )
        raise ConfigError(path.name, [problem])
    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in content else load_pem_private_key
    try:
        return load(content, None)
    except TypeError:
        raise ConfigError(path.name, [f"is protected by a password; {expected}, without one"]) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(path.name, [f"holds no private key in PEM form; {expected}"]) from None
