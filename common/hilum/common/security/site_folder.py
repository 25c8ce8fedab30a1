"""A site's own papers: `site.key`, which never leaves, the request for a certificate, and what came back.

<folder>/
    site.key    made here; its owner alone may read it
    site.csr    to be sent to the federation's admin
    site.crt    from the admin: who this site is
    root.crt    from the admin: which server this site believes
"""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from hilum.common.errors import ConfigError
from hilum.common.files import replacing
from hilum.common.security.certificates import pem_of
from hilum.common.security.keys import (
    cannot_write,
    fingerprint,
    new_key,
    public_bytes,
    read_paper,
    read_site_key,
    write_paper,
    write_private_key,
)
from hilum.common.security.link_file import LinkFile, check_link, read_link_file
from hilum.common.security.requests import check_name, make_request

KEY, REQUEST, CERTIFICATE, ROOT = "site.key", "site.csr", "site.crt", "root.crt"


@dataclass(frozen=True)
class Enrolled:
    """What `enroll` made.

    Attributes:
        request: The file to send.
        fingerprint: Of the public key.
        fresh: Whether the key was made now, and not found.
    """

    request: Path
    fingerprint: str
    fresh: bool


def enroll(folder: Path, name: str) -> Enrolled:
    """Make the site's key, where there is none yet, and a request for a certificate.

    Raises:
        ConfigError: If the name is not one, the folder can't be written, or another kind of key lies there.
    """
    check_name(name, "--name")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(folder.name, [cannot_write(error)]) from None
    path = folder / KEY
    fresh = not path.exists()
    if fresh:
        write_private_key(path, new_key())
    key = read_site_key(path)
    write_paper(folder / REQUEST, make_request(name, key))
    return Enrolled(folder / REQUEST, fingerprint(public_bytes(key.public_key())), fresh)


def join(folder: Path, link_file: Path) -> LinkFile:
    """Put what the admin sent beside the site's key, if it fits.

    Raises:
        ConfigError: If it does not fit the key, or the folder belongs to another federation.
    """
    link = read_link_file(link_file)
    advice = f"`hilum site enroll --name {link.name}` makes it; --out names the folder where it lies"
    if not (folder / KEY).exists():
        raise ConfigError(KEY, [f"is not in this folder; {advice}"])
    check_link(link, read_site_key(folder / KEY), link_file.name)
    root, kept = pem_of(link.root), folder / ROOT
    if kept.exists() and read_paper(kept, "expected a certificate").strip() != root.strip():
        problem = "this folder belongs to another federation; remove root.crt here if you mean to change it"
        raise ConfigError(link_file.name, [problem])
    write_paper(kept, root)
    write_paper(folder / CERTIFICATE, pem_of(link.certificate))
    return link


def link_table(link: LinkFile, folder: Path, beside: Path) -> str:
    """Return the table `[link]` of a site file.

    Args:
        link: From `join`.
        folder: Where the papers lie.
        beside: The folder of the site file: paths are relative to it where the papers lie in it.
    """
    papers, home = folder.absolute(), beside.absolute()
    base = papers.relative_to(home) if papers.is_relative_to(home) else papers
    table = {
        "server": link.server,
        "root_certificate": str(base / ROOT),
        "certificate": str(base / CERTIFICATE),
        "key": str(base / KEY),
        "study_key": link.study_key,
    }
    return tomli_w.dumps({"link": table})


def put_into_site_file(site_file: Path, table: str, name: str) -> None:
    """Put the table `[link]` into a site file; every other line of it stays as it is.

    Raises:
        ConfigError: If the file is not TOML, is another site's, or its own `[link]` can't be told apart.
    """
    source = site_file.name
    try:
        text = read_paper(site_file, "name this site's own file with --site").decode("utf-8-sig")
        before = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(source, [f"is not valid TOML: {error}"]) from None
    said = before.get("site", {})
    if isinstance(said, dict) and said.get("name", name) != name:
        problem = (
            f"says `site.name = {said['name']!r}`, and the certificate is for {name!r}; make the two agree, or ask the "
            "admin for a certificate with the right name"
        )
        raise ConfigError(source, [problem])
    after = _replaced(text, table)
    if _parsed(after) != {**before, **tomllib.loads(table)}:
        raise ConfigError(
            source, ["its table [link] is not written as one; remove it, and run the command again"]
        )
    mode = site_file.stat().st_mode & 0o777
    try:
        with replacing(site_file) as file:
            os.fchmod(file.fileno(), mode)
            file.write(after.encode())
    except OSError as error:
        raise ConfigError(source, [cannot_write(error)]) from None


def _replaced(text: str, table: str) -> str:
    """Return the text with its lines from `[link]` to the next table exchanged, or with the table at its end."""
    lines = text.splitlines(keepends=True)
    begins = [at for at, line in enumerate(lines) if line.split("#")[0].strip() == "[link]"]
    if not begins:
        return text + ("" if text.endswith("\n") or not text else "\n") + "\n" + table
    begin = begins[0]
    ends = [at for at in range(begin + 1, len(lines)) if lines[at].lstrip().startswith("[")]
    end = ends[0] if ends else len(lines)
    while end > begin + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1  # what stands right above the next table belongs to it
    return "".join([*lines[:begin], table, *lines[end:]])


def _parsed(text: str) -> dict[str, Any]:
    """Return a TOML text, or nothing where it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}
