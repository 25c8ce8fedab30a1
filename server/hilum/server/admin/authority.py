"""The federation's keys and papers, made by the admin's commands.

<home>/federation/          closed to all but its owner, as every file in it
    root.key  root.crt      the authority: it signs the server and the sites
    server.key  server.crt  the server's, renewed under the same key
    study.key  study.pub    what studies are signed with; the key may be kept elsewhere
    federation.toml         under which names and port sites reach the server
    sites.sqlite            who may take part (`hilum.server.sites`)
    runs.sqlite             the queue of runs (`hilum.server.admin.queue`)
    admin.sock  server.log  while `hilum admin serve` runs, and what it told
"""

import os
import secrets
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from hilum.common.config.base import Section
from hilum.common.errors import ConfigError
from hilum.common.files import private_folder, sync_folder
from hilum.common.output_folder import check_output_folder
from hilum.common.security.certificates import (
    check_root,
    check_server_certificate,
    der_of,
    general_name,
    make_root,
    make_server_certificate,
    make_site_certificate,
    pem_of,
    read_certificate,
)
from hilum.common.security.keys import (
    cannot_write,
    fingerprint,
    new_key,
    read_paper,
    read_site_key,
    write_paper,
    write_private_key,
)
from hilum.common.security.link_file import LinkFile
from hilum.common.security.requests import SiteRequest
from hilum.common.security.site_folder import REQUEST, enroll, join, link_table
from hilum.common.signing import public_text
from hilum.server.sites import SiteRegistry

SUPERVISOR_LOCK, SERVER_LOCK = (
    "serve.lock",
    "server.lock",
)  # who keeps the server running, and the server itself
ONE_SERVER = "a server runs on this state folder already; stop it first, or name another with --home"
_INIT = "`hilum admin init` makes it"


class Address(Section):
    """Under which names or addresses, and on which port, sites reach the server; the first name is in their links."""

    hosts: tuple[str, ...] = Field(strict=False, min_length=1)
    port: int = Field(ge=1, le=65535)

    @property
    def server(self) -> str:
        """HOST:PORT as sites have it; an IPv6 address stands in brackets."""
        host = self.hosts[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True)
class Fingerprints:
    """Of the federation's root and of the key that signs studies."""

    root: str
    study_key: str


@dataclass(frozen=True)
class FederationFolder:
    """The paths inside `<home>/federation`."""

    home: Path

    @property
    def path(self) -> Path:
        """The folder."""
        return self.home / "federation"

    @property
    def runs(self) -> Path:
        """The run directories."""
        return self.home / "runs"

    def file(self, name: str) -> Path:
        """Return one file of the folder.

        Raises:
            ConfigError: If there is no federation.
        """
        if not self.path.is_dir():
            raise ConfigError(
                "federation",
                [f"there is none in the state folder {self.home.name}; {_INIT}, --home names it"],
            )
        return self.path / name

    def address(self) -> Address:
        """Return where sites reach the server.

        Raises:
            ConfigError: If `federation.toml` is missing or wrong.
        """
        content = read_paper(self.file("federation.toml"), _INIT)
        try:
            return Address.model_validate(tomllib.loads(content.decode()))
        except (ValueError, ValidationError):
            raise ConfigError("federation.toml", ["expected `hosts`, a list of names, and `port`"]) from None

    def root(self) -> x509.Certificate:
        """Return the federation's root.

        Raises:
            ConfigError: If it is missing, not a root or out of date.
        """
        root = read_certificate(read_paper(self.file("root.crt"), _INIT), "root.crt", _INIT)
        check_root(root, "root.crt")
        return root

    def study_key_text(self) -> str:
        """Return the public key of studies, as link files have it.

        Raises:
            ConfigError: If it is missing.
        """
        return read_paper(self.file("study.pub"), _INIT).decode("ascii", "replace").strip()

    def fingerprints(self) -> Fingerprints:
        """Return what the admin reads out, as `hilum site join` shows it."""
        return Fingerprints(fingerprint(der_of(self.root())), fingerprint(self.study_key_text().encode()))

    def sites(self) -> SiteRegistry:
        """Return the registry of sites, opened."""
        return SiteRegistry(self.file("sites.sqlite"))

    def check_server(self, hosts: Sequence[str]) -> x509.Certificate:
        """See that the server can be started so that sites believe it.

        Raises:
            ConfigError: If a key or certificate is missing, out of date, or does not cover a host.
        """
        key = read_site_key(self.file("server.key"))
        content = read_paper(self.file("server.crt"), "`hilum admin renew` makes it")
        certificate = read_certificate(content, "server.crt", "`hilum admin renew` makes a new one")
        check_server_certificate(certificate, self.root(), key.public_key(), hosts, "server.crt")
        return certificate


def init_federation(home: Path, hosts: Sequence[str], port: int) -> FederationFolder:
    """Make a federation: all keys and papers, or, if that fails, none.

    Raises:
        ConfigError: If there is one already, a host is not one, or the folder can't be written.
    """
    folder = FederationFolder(home)
    for host in hosts:
        general_name(host)
    if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        problem = "there is one already in this state folder; name another with --home"
        raise ConfigError("federation", [problem])
    aside = FederationFolder(home / f".{secrets.token_hex(4)}.partial")
    try:
        private_folder(aside.path)
        root_key, server_key, study_key = new_key(), new_key(), Ed25519PrivateKey.generate()
        root = make_root(root_key, f"Hilum federation {secrets.token_hex(4)}")
        for name, key in (("root.key", root_key), ("server.key", server_key), ("study.key", study_key)):
            write_private_key(aside.path / name, key)
        write_paper(aside.path / "root.crt", pem_of(root))
        _write_server_certificate(aside, server_key, hosts, root, root_key)
        write_paper(aside.path / "study.pub", f"{public_text(study_key.public_key())}\n".encode())
        _write_address(aside, Address(hosts=tuple(hosts), port=port))
        aside.sites().close()
        aside.path.replace(folder.path)
        sync_folder(home)
    except OSError as error:
        raise ConfigError("federation", [cannot_write(error)]) from None
    finally:
        shutil.rmtree(aside.home, ignore_errors=True)
    return folder


def renew_server(folder: FederationFolder, hosts: Sequence[str], port: int | None) -> x509.Certificate:
    """Make a new server certificate, with the kept root and server keys; sites need nothing new.

    Args:
        folder: The federation.
        hosts: The names that it is for; none: those that it was for.
        port: Of new link files; None: as before.

    Raises:
        ConfigError: If a host is not one, or a key is missing.
    """
    before = folder.address()
    address = Address(hosts=tuple(hosts) or before.hosts, port=port or before.port)
    root_key = read_site_key(folder.file("root.key"))
    server_key = read_site_key(folder.file("server.key"))
    made = _write_server_certificate(folder, server_key, address.hosts, folder.root(), root_key)
    _write_address(folder, address)
    return made


def approve_site(folder: FederationFolder, request: SiteRequest, out: Path, *, replace: bool) -> LinkFile:
    """Give a site its certificate, enter it into the registry, and write what to send back.

    Args:
        folder: The federation.
        request: From `read_request`.
        out: Where to write the link file.
        replace: The name's earlier key, if there is another, ends now.

    Raises:
        ConfigError: If the name has another key, the key another name, or the root's key is missing.
    """
    root, root_key = folder.root(), read_site_key(folder.file("root.key"))
    if not os.access(out.absolute().parent, os.W_OK):  # before the registry has the site
        raise ConfigError(out.name, ["can't be written; name a folder that this user may write to"])

    def sign(name: str, public: ec.EllipticCurvePublicKey) -> x509.Certificate:
        return make_site_certificate(name, public, root, root_key)

    registry = folder.sites()
    try:
        certificate = registry.approve(request, sign, replace=replace)
    finally:
        registry.close()
    link = LinkFile(folder.address().server, folder.study_key_text(), root, certificate)
    link.write(out)
    return link


def make_trial(folder: Path, sites: int, hosts: Sequence[str], port: int) -> list[Path]:
    """Play admin and every site on one machine: `FOLDER/server` is the server's home, `FOLDER/site-N` a site's papers.

    Returns:
        The sites' folders; `link.toml` in each is the table for its site file.

    Raises:
        RunError: If the folder is not empty.
        ConfigError: If it can't be written.
    """
    from hilum.common.security.requests import read_request

    check_output_folder(folder)
    try:
        private_folder(folder)
    except OSError as error:
        raise ConfigError(folder.name, [cannot_write(error)]) from None
    federation = init_federation(folder / "server", hosts, port)
    made = []
    for index in range(sites):
        name, place = f"site-{index}", folder / f"site-{index}"
        enroll(place, name)
        request = read_request((place / REQUEST).read_bytes(), REQUEST)
        sent = place / f"{name}.link.toml"
        approve_site(federation, request, sent, replace=False)
        write_paper(place / "link.toml", link_table(join(place, sent), place, place).encode())
        made.append(place)
    return made


def _write_server_certificate(
    folder: FederationFolder,
    key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    made = make_server_certificate(key.public_key(), hosts, root, root_key)
    write_paper(folder.path / "server.crt", pem_of(made))
    return made


def _write_address(folder: FederationFolder, address: Address) -> None:
    write_paper(folder.path / "federation.toml", tomli_w.dumps(address.model_dump(mode="json")).encode())
