"""NAME.link.toml: the one file that the admin sends back to a site. It holds nothing secret.

[link]
server = "federation.example:9443"
study_key = "ed25519:..."
root_certificate = PEM
certificate = PEM
"""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w
from cryptography import x509

from hilum.common.config.site import SERVER_PATTERN
from hilum.common.errors import ConfigError
from hilum.common.security.certificates import (
    check_dates,
    check_root,
    check_site_certificate,
    common_name,
    der_of,
    pem_of,
    read_certificate,
)
from hilum.common.security.keys import fingerprint, read_paper, write_paper
from hilum.common.security.requests import check_name
from hilum.common.signing import public_key_of

_KEYS = {"server", "study_key", "root_certificate", "certificate"}
_ADVICE = "expected the NAME.link.toml that the federation's admin sent"


@dataclass(frozen=True)
class LinkFile:
    """What a site needs to reach its federation, apart from its own key."""

    server: str
    study_key: str
    root: x509.Certificate = field(repr=False)
    certificate: x509.Certificate = field(repr=False)

    @property
    def name(self) -> str:
        """The site's name, as its certificate has it."""
        return common_name(self.certificate)

    @property
    def root_fingerprint(self) -> str:
        """Of the federation's root, to be compared with what the admin reads out."""
        return fingerprint(der_of(self.root))

    @property
    def study_fingerprint(self) -> str:
        """Of the key that signs studies, likewise."""
        return fingerprint(self.study_key.encode())

    def write(self, path: Path) -> None:
        """Write the file.

        Raises:
            ConfigError: If the folder can't be written.
        """
        table = {
            "server": self.server,
            "study_key": self.study_key,
            "root_certificate": pem_of(self.root).decode(),
            "certificate": pem_of(self.certificate).decode(),
        }
        head = (
            f"# For the site {self.name}: put this file beside site.key, and run `hilum site join {path.name}` there.\n"
            f"# root {self.root_fingerprint}\n# studies are signed by {self.study_fingerprint}\n"
        )
        write_paper(path, (head + tomli_w.dumps({"link": table}, multiline_strings=True)).encode())


def read_link_file(path: Path) -> LinkFile:
    """Read a link file and see that it can be used here and now.

    Raises:
        ConfigError: If it is not a link file, or a certificate in it is not what it should be.
    """
    table = _table(read_paper(path, _ADVICE), path.name)
    if not re.fullmatch(SERVER_PATTERN, table["server"]):
        raise ConfigError(path.name, [f"`link.server` is not HOST:PORT; {_ADVICE}"])
    public_key_of(table["study_key"])
    root = read_certificate(table["root_certificate"].encode(), f"{path.name}: root_certificate", _ADVICE)
    mine = read_certificate(table["certificate"].encode(), f"{path.name}: certificate", _ADVICE)
    check_root(root, f"{path.name}: root_certificate")
    check_name(common_name(mine), f"{path.name}: certificate")
    return LinkFile(table["server"], table["study_key"], root, mine)


def check_link(link: LinkFile, key: Any, source: str) -> None:
    """See that a link file is for the key that lies at the site.

    Raises:
        ConfigError: If its certificate is not of its root, not for this key, or not good now.
    """
    whose = f"the file is for the site {link.name}; if that is this one, send site.csr to the admin again"
    check_site_certificate(link.certificate, link.root, key.public_key(), source, whose)
    check_dates(link.root, source, "ask the federation's admin")


def _table(content: bytes, source: str) -> dict[str, str]:
    try:
        link: Any = tomllib.loads(content.decode())["link"]
    except (ValueError, KeyError, RecursionError):
        raise ConfigError(source, [f"holds no table [link]; {_ADVICE}"]) from None
    if not isinstance(link, dict) or set(link) != _KEYS or not all(isinstance(v, str) for v in link.values()):
        raise ConfigError(
            source, [f"the table [link] must hold {', '.join(sorted(_KEYS))}, and nothing else; {_ADVICE}"]
        )
    return link
