"""A throwaway federation for tests: a root, a server's certificate, sites' certificates, and who of them is admitted."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, as PEM files, and as TLS has it."""

    cert: Path
    key: Path
    private_key: ec.EllipticCurvePrivateKey
    der: bytes


class Federation:
    """A root that signs; as `Admission` it admits every site that it signed and did not revoke.

    Args:
        folder: Where the files go.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.root = folder / "root.crt"
        self.admitted: dict[bytes, str] = {}
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test federation")])
        self._key = ec.generate_private_key(ec.SECP384R1())
        certificate = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA384())
        )
        self.root.write_bytes(certificate.public_bytes(Encoding.PEM))
        self.server = self._sign("server", ExtendedKeyUsageOID.SERVER_AUTH)

    def site(self, name: str) -> Identity:
        """A certificate for a site, which is admitted."""
        identity = self._sign(name, ExtendedKeyUsageOID.CLIENT_AUTH)
        self.admitted[identity.der] = name
        return identity

    def name_of(self, certificate_der: bytes) -> str | None:
        return self.admitted.get(certificate_der)

    def revoke(self, identity: Identity) -> None:
        self.admitted.pop(identity.der, None)

    def client_context(self, identity: Identity | None) -> ssl.SSLContext:
        """TLS as a site uses it; without a certificate if None."""
        context = ssl.create_default_context(cafile=self.root)
        if identity is not None:
            context.load_cert_chain(identity.cert, identity.key)
        return context

    def _sign(self, name: str, use: x509.ObjectIdentifier) -> Identity:
        key = ec.generate_private_key(ec.SECP384R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            _builder(subject, self._name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(loopback, critical=False)
            .sign(self._key, hashes.SHA384())
        )
        cert, private = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        cert.write_bytes(certificate.public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Identity(cert, private, key, certificate.public_bytes(Encoding.DER))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
