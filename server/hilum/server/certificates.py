"""A development helper: certificates and node keys for a federation that one person tries out.

In a real federation every site makes its own key and sends only the public half. This helper makes all of them in one
place, for a day of tests; the certificates end after `DAYS`.
"""

import datetime as dt
import ipaddress
import os
from pathlib import Path

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hilum.common.errors import RunError

DAYS = 30
_CLOCK_SKEW = dt.timedelta(minutes=10)


def write_development_keys(folder: Path, *, sites: int, host: str, port: int) -> list[Path]:
    """Make a root certificate, a server certificate, and a key for each site.

    Args:
        folder: New or empty.
        sites: How many sites.
        host: The name or address under which sites reach the server.
        port: The server's port.

    Returns:
        The link tables, one for each site, to be put into its site file.

    Raises:
        RunError: If the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError("the key folder is not empty; name a folder that is new or empty")
    folder.mkdir(parents=True, exist_ok=True)
    root_key, server_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    root = _root_certificate(root_key)
    _write(folder / "root.crt", root.public_bytes(serialization.Encoding.PEM))
    _write(
        folder / "server.crt",
        _server_certificate(server_key, root, root_key, host).public_bytes(serialization.Encoding.PEM),
    )
    _write(folder / "server.key", _pem(server_key), private=True)
    links = []
    for index in range(sites):
        key = ec.generate_private_key(ec.SECP384R1())
        private, public = serialization.PrivateFormat.OpenSSH, serialization.PublicFormat.OpenSSH
        secret = key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
        _write(folder / f"site-{index}.key", secret, private=True)
        _write(
            folder / f"site-{index}.pub",
            key.public_key().public_bytes(serialization.Encoding.OpenSSH, public) + b"\n",
        )
        link = {
            "superlink": f"{host}:{port}",
            "root_certificate": str((folder / "root.crt").absolute()),
            "node_key": str((folder / f"site-{index}.key").absolute()),
        }
        path = folder / f"site-{index}.link.toml"
        _write(path, tomli_w.dumps({"link": link}).encode())
        links.append(path)
    return links


def _root_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hilum development root")])
    builder = _builder(name, name, key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), True
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return builder.add_extension(usage, True).sign(key, hashes.SHA384())


def _server_certificate(
    key: ec.EllipticCurvePrivateKey, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey, host: str
) -> x509.Certificate:
    """The server's own child processes connect by 127.0.0.1, so the certificate names it too."""
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    return (
        _builder(subject, root.subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName(list(dict.fromkeys(names))), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
        .sign(root_key, hashes.SHA384())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption())


def _write(path: Path, content: bytes, *, private: bool = False) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
