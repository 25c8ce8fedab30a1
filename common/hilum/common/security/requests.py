"""A site's request for a certificate (PKCS#10, RFC 2986). To the admin it is a stranger's file.

Only two things are taken out of it: the name and the public key. Extensions that it asks for are not looked at.
"""

import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hilum.common.config.base import NAME_PATTERN
from hilum.common.errors import ConfigError
from hilum.common.security.keys import SITE_CURVES, fingerprint, kind_of, public_bytes

MAX_REQUEST_BYTES = 16 * 1024
_ADVICE = "ask the site for the site.csr that `hilum site enroll` made"
_MISTAKEN = {
    b"PRIVATE KEY-----": "is a private key, which must not leave its site: have the site make a new one, and send site.csr",
    b"BEGIN CERTIFICATE-----": f"is a certificate, not a request for one; {_ADVICE}",
    b"BEGIN PUBLIC KEY-----": f"is a bare public key, not a request for a certificate; {_ADVICE}",
    b"ssh-": f"is an OpenSSH key, not a request for a certificate; {_ADVICE}",
    b"ecdsa-sha2-": f"is an OpenSSH key, not a request for a certificate; {_ADVICE}",
}


@dataclass(frozen=True)
class SiteRequest:
    """Who asks, and for which key."""

    name: str
    public_key: ec.EllipticCurvePublicKey = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Of the public key, to be compared with what the site reads out."""
        return fingerprint(public_bytes(self.public_key))


def check_name(name: str, source: str) -> str:
    """Return a site's name, if it is one.

    Raises:
        ConfigError: If it is not.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        problem = (
            f"the name {name[:80]!a} is not one: letters, digits, '.', '_' and '-', at most 64, beginning with a letter or "
            "digit"
        )
        raise ConfigError(source, [problem])
    return name


def make_request(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a request in PEM form, signed by the key that it is for."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, check_name(name, "--name"))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM)


def read_request(content: bytes, source: str) -> SiteRequest:
    """Check a request that came from outside.

    Args:
        content: The file.
        source: Its name, for messages.

    Raises:
        ConfigError: If it is too long, no request, not signed by its own key, or its name or key is not acceptable.
    """
    if len(content) > MAX_REQUEST_BYTES:
        raise ConfigError(source, [f"is longer than {MAX_REQUEST_BYTES // 1024} KiB; {_ADVICE}"])
    for mark, problem in _MISTAKEN.items():
        if mark in content:
            raise ConfigError(source, [problem])
    try:
        request = x509.load_pem_x509_csr(content)
        key: object = request.public_key()
        names = [attribute.value for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except Exception:  # a stranger's bytes: whatever the parser says, they are not a request
        raise ConfigError(source, [f"is not a request for a certificate in PEM form; {_ADVICE}"]) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in SITE_CURVES:
        problem = f"is for {kind_of(key)}; expected an elliptic-curve key on P-384 or P-256; {_ADVICE}"
        raise ConfigError(source, [problem])
    if not _is_signed(request):
        raise ConfigError(source, [f"is not signed by the key that it is for; {_ADVICE}"])
    if len(names) != 1 or not isinstance(names[0], str):
        raise ConfigError(source, [f"has {len(names)} common names, expected one; {_ADVICE}"])
    return SiteRequest(check_name(names[0], source), key)


def _is_signed(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except Exception:  # an algorithm that the library does not know
        return False
