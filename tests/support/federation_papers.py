"""Papers of a federation made for a test: root, server, sites, each as asked for."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hilum.client.link.identity import Identity, read_identity
from hilum.common.config.site import LinkSection
from hilum.common.security.certificates import make_root, make_server_certificate, make_site_certificate


def link_of(papers: "Papers", server: str, pair=None, name="site-a") -> LinkSection:
    """What a site file says of the link."""
    cert, key = pair or papers.site(name)
    return LinkSection(
        server=server,
        root_certificate=papers.root_path,
        certificate=cert,
        key=key,
        study_key=f"ed25519:{'A' * 43}=",
    )


def identity_of(papers: "Papers", server="localhost:1", pair=None, name="site-a") -> Identity:
    return read_identity(link_of(papers, server, pair, name), name)


class Papers:
    """A federation's certificates, with dates as a test wants them."""

    def __init__(self, folder: Path, name: str = "federation") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.root_key = folder, ec.generate_private_key(ec.SECP384R1())
        self.root = make_root(self.root_key, name)
        self.root_path = self._write("root.crt", self.root.public_bytes(Encoding.PEM))

    def server(self, hosts=("localhost",), **dates) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP384R1())
        made = make_server_certificate(key.public_key(), hosts, self.root, self.root_key)
        return self._pair("server", self._dated(made, **dates), key)

    def site(self, name="site-a", **dates) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP384R1())
        made = make_site_certificate(name, key.public_key(), self.root, self.root_key)
        return self._pair(name, self._dated(made, **dates), key)

    def _dated(self, made, begins: timedelta | None = None, ends: timedelta | None = None, names=None):
        """The same certificate with other dates or names, from now."""
        from cryptography.hazmat.primitives import hashes

        if begins is None and ends is None and names is None:
            return made
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            made.issuer,
            made.subject,
            made.public_key(),
            made.serial_number,
            now + (begins if begins is not None else -timedelta(days=400)),
            now + (ends if ends is not None else timedelta(days=400)),
        )
        for extension in made.extensions:
            value = extension.value
            if names is not None and isinstance(value, x509.SubjectAlternativeName):
                value = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(value, extension.critical)
        return builder.sign(self.root_key, hashes.SHA384())

    def _pair(self, name, certificate, key) -> tuple[Path, Path]:
        cert = self._write(f"{name}.crt", certificate.public_bytes(Encoding.PEM))
        return cert, self._write(
            f"{name}.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path


def server_context(papers: Papers, pair=None, **kind) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*(pair or papers.server()))
    context.load_verify_locations(papers.root_path)
    context.verify_mode = ssl.CERT_REQUIRED
    return context
