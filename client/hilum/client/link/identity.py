"""The site's papers: which server it believes, and who it is.

All of it is checked before anything is sent, so that a file that does not fit is named here and not by a TLS alert.
"""

import datetime as dt
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from hilum.common.config.site import LinkSection
from hilum.common.errors import ConfigError
from hilum.common.security.certificates import (
    check_root,
    check_site_certificate,
    common_name,
    pem_of,
    read_certificate,
)
from hilum.common.security.keys import read_paper, read_site_key

_JOIN = "`hilum site join NAME.link.toml` puts it there"


@dataclass(frozen=True)
class Identity:
    """Who a site is, as its files say.

    Attributes:
        name: The common name of its certificate.
        host: Of the server.
        port: Of the server.
        root: The one authority that the server's certificate must be of.
        certificate: The site's own.
        context: TLS with exactly these, to be used for nothing else.
    """

    name: str
    host: str
    port: int
    root: x509.Certificate = field(repr=False)
    certificate: x509.Certificate = field(repr=False)
    context: ssl.SSLContext = field(repr=False)

    @property
    def where(self) -> str:
        """The server, as lines for people name it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def ends(self) -> dt.datetime:
        """When the site's certificate expires."""
        return self.certificate.not_valid_after_utc


def read_identity(link: LinkSection, name: str) -> Identity:
    """Read and check the papers.

    Args:
        link: Where they lie.
        name: The site's name, as its own file says.

    Raises:
        ConfigError: If a file is missing, open to others, not what it should be, or does not fit the others.
    """
    root = _certificate(link.root_certificate)
    check_root(root, link.root_certificate.name)
    certificate = _certificate(link.certificate)
    key = read_site_key(link.key)
    check_site_certificate(certificate, root, key.public_key(), link.certificate.name)
    check_name(certificate, name, link.certificate.name)
    host, port = link.server.rsplit(":", 1)
    context = _context(link, root)
    return Identity(name, host.strip("[]"), int(port), root, certificate, context)


def check_name(certificate: x509.Certificate, name: str, source: str) -> None:
    """See that the certificate is for the site that the site file is about.

    Raises:
        ConfigError: If it is for another.
    """
    if common_name(certificate) != name:
        problem = (
            f"is for {common_name(certificate)!r}, and the site file says `site.name = {name!r}`; make the two agree, "
            "or ask the federation's admin for a certificate with the right name"
        )
        raise ConfigError(source, [problem])


def _certificate(path: Path) -> x509.Certificate:
    return read_certificate(read_paper(path, _JOIN), path.name, _JOIN)


def _context(link: LinkSection, root: x509.Certificate) -> ssl.SSLContext:
    """TLS that believes the federation's root alone: no authority of the machine's is loaded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.load_verify_locations(cadata=pem_of(root).decode())
    try:
        context.load_cert_chain(link.certificate, link.key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        problem = f"can't be used for TLS together with {link.certificate.name} ({type(error).__name__})"
        raise ConfigError(link.key.name, [f"{problem}; make both new with `hilum site enroll`"]) from None
    return context
