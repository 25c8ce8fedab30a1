"""Who may take part: the names that the admin approved, each bound to one key and its certificates.

A name belongs to one key, and a key to one name. A certificate counts only if it is in the registry, byte for byte, so
that what the root once signed and the admin then revoked is worth nothing. A newer certificate of the same key replaces
the older: the older stays good until the newer was first seen at the gate, or for `GRACE_S` after it was issued,
whichever is first. A key that another replaces (`--replace`), or that is revoked, is refused from the next request on,
and never approved again.
"""

import datetime as dt
import difflib
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    select,
    update,
)
from sqlalchemy.exc import OperationalError

from hilum.common.database import Database
from hilum.common.errors import ConfigError
from hilum.common.security.certificates import der_of
from hilum.common.security.keys import fingerprint, public_bytes
from hilum.common.security.requests import SiteRequest

GRACE_S = 7 * 86_400.0
_NOTE_AGAIN_S = 60.0
_BUSY_S = 5.0  # the gate waits for it
_APPROVE_AGAIN = "move it away and approve every site again"
APPROVED, REVOKED, REPLACED = "approved", "revoked", "replaced"

_log = logging.getLogger(__name__)
_tables = MetaData()
_keys = Table(
    "keys",
    _tables,
    Column("public_key", LargeBinary, primary_key=True),  # DER SubjectPublicKeyInfo
    Column("name", String, nullable=False, index=True),
    Column("status", String, nullable=False),
    Column("approved_at", Float, nullable=False),  # seconds since 1970, as all times here
    Column("ended_at", Float),
)
_certificates = Table(
    "certificates",
    _tables,
    Column("number", Integer, primary_key=True),  # ascending: the later one is the newer
    Column("sha256", LargeBinary, nullable=False, unique=True),  # of the DER
    Column("public_key", LargeBinary, ForeignKey("keys.public_key"), nullable=False),
    Column("not_before", Float, nullable=False),
    Column("not_after", Float, nullable=False),
    Column("issued_at", Float, nullable=False),
    Column("first_seen_at", Float),
)


@dataclass(frozen=True)
class RegisteredSite:
    """A name in the registry.

    Attributes:
        status: `approved`, or `revoked`.
        fingerprint: Of the public key.
        approved_at: When the key was, in seconds since 1970.
        ends_at: When the newest certificate ends, likewise.
        first_seen_at: When the newest certificate was first used, likewise; None if it was not.
    """

    name: str
    status: str
    fingerprint: str
    approved_at: float
    ends_at: float
    first_seen_at: float | None


@dataclass(frozen=True)
class _Admitted:
    """What is known of one certificate; `until` is the end of its own dates and of the grace after a newer one."""

    name: str
    begins: float
    until: float
    seen: bool


class SiteRegistry:
    """The registry, in one SQLite file that the gate reads and the admin's commands write.

    Args:
        path: The file.
        clock: Seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(path, _tables, version=1, remedy=_APPROVE_AGAIN, busy_s=_BUSY_S)
        self._clock = clock
        self._reader = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._lock = threading.Lock()
        self._version = -1
        self._admitted: dict[bytes, _Admitted] = {}
        self._note_after = 0.0

    def name_of(self, certificate_der: bytes) -> str | None:
        """Return the site that a certificate stands for, or None: unknown, revoked, replaced or out of date.

        It costs microseconds, and a change that another process committed before the call is seen.
        """
        digest, now = hashlib.sha256(certificate_der).digest(), self._clock()
        with self._lock:
            self._refresh()
            found = self._admitted.get(digest)
        if found is None or not found.begins <= now < found.until:
            return None
        if not found.seen and now >= self._note_after:
            self._note_first_use(digest, now)
        return found.name

    def approve(
        self,
        request: SiteRequest,
        sign: Callable[[str, ec.EllipticCurvePublicKey], x509.Certificate],
        *,
        replace: bool = False,
    ) -> x509.Certificate:
        """Enter a site, or give one that is there already a new certificate.

        Args:
            request: From `read_request`.
            sign: Makes the certificate; called once it is clear that there may be one.
            replace: The name's earlier key, if there is another, ends now.

        Raises:
            ConfigError: If the name has another key, the key another name, or the key was revoked or replaced.
        """
        key, now = public_bytes(request.public_key), self._clock()
        with self._database.writing() as connection:
            self._check_key(connection, request, key)
            _check_spelling(connection, request.name)
            current = _current_key(connection, request.name)
            if current is not None and current.public_key != key:
                if not replace:
                    raise ConfigError(request.name, [_other_key(current, request)])
                connection.execute(
                    update(_keys)
                    .where(_keys.c.public_key == current.public_key, _keys.c.status == APPROVED)
                    .values(status=REPLACED, ended_at=now)
                )
            if current is None or current.public_key != key:
                connection.execute(
                    insert(_keys).values(public_key=key, name=request.name, status=APPROVED, approved_at=now)
                )
            certificate = sign(request.name, request.public_key)
            connection.execute(
                insert(_certificates).values(
                    sha256=hashlib.sha256(der_of(certificate)).digest(),
                    public_key=key,
                    not_before=certificate.not_valid_before_utc.timestamp(),
                    not_after=certificate.not_valid_after_utc.timestamp(),
                    issued_at=now,
                )
            )
        return certificate

    def revoke(self, name: str) -> None:
        """Shut a site out, from its next request on.

        Raises:
            ConfigError: If there is no such site, or it is revoked already.
        """
        with self._database.writing() as connection:
            current = _current_key(connection, name)
            if current is None:
                raise ConfigError(name, [_unknown(connection, name)])
            if current.status == REVOKED:
                raise ConfigError(name, [f"was revoked already, on {_day(current.ended_at)}"])
            connection.execute(
                update(_keys)
                .where(_keys.c.public_key == current.public_key)
                .values(status=REVOKED, ended_at=self._clock())
            )

    def sites(self) -> list[RegisteredSite]:
        """Return every name, with the key that it has or last had."""
        with self._database.transaction() as connection:
            names = connection.execute(select(_keys.c.name).distinct().order_by(_keys.c.name)).scalars().all()
            return [_site(connection, name) for name in names]

    def check_approved(self, names: list[str]) -> None:
        """See that every name is of a site that may take part.

        Raises:
            ConfigError: With the first name that is not.
        """
        for name in names:
            with self._database.transaction() as connection:
                current = _current_key(connection, name)
                if current is None:
                    raise ConfigError(name, [_unknown(connection, name)])
                if current.status != APPROVED:
                    raise ConfigError(name, [f"was revoked on {_day(current.ended_at)}"])

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._reader.close()
        self._database.close()

    def _refresh(self) -> None:
        """Read the tables again if anybody has written them since."""
        version = int(self._reader.exec_driver_sql("PRAGMA data_version").scalar_one())
        if version == self._version:
            return
        rows = self._reader.execute(
            select(_certificates, _keys.c.name)
            .join(_keys, _keys.c.public_key == _certificates.c.public_key)
            .where(_keys.c.status == APPROVED)
            .order_by(_certificates.c.number.desc())
        ).all()
        self._admitted = {}
        ends: dict[bytes, float] = {}
        for row in rows:  # newest first: each one may end those after it
            self._admitted[row.sha256] = _Admitted(
                row.name,
                row.not_before,
                min(row.not_after, ends.get(row.public_key, row.not_after)),
                seen=row.first_seen_at is not None,
            )
            end = row.issued_at + GRACE_S if row.first_seen_at is None else row.first_seen_at
            ends[row.public_key] = min(end, ends.get(row.public_key, end))
        self._version = version

    def _note_first_use(self, digest: bytes, now: float) -> None:
        try:
            with self._database.writing() as connection:
                connection.execute(
                    update(_certificates)
                    .where(_certificates.c.sha256 == digest, _certificates.c.first_seen_at.is_(None))
                    .values(first_seen_at=now)
                )
        except OperationalError:
            self._note_after = now + _NOTE_AGAIN_S
            _log.warning("sites.sqlite is busy or full: the first use of a certificate was not noted")

    def _check_key(self, connection: Connection, request: SiteRequest, key: bytes) -> None:
        known = connection.execute(select(_keys).where(_keys.c.public_key == key)).first()
        if known is None:
            return
        if known.name != request.name:
            problem = (
                f"asks with the key of {known.name} ({request.fingerprint}); a key has one name: have the site make a "
                "key of its own with `hilum site enroll`"
            )
            raise ConfigError(request.name, [problem])
        if known.status != APPROVED:
            problem = (
                f"asks with a key that was {known.status} on {_day(known.ended_at)}; have the site remove site.key and "
                "make a new one with `hilum site enroll`, then approve it with --replace"
            )
            raise ConfigError(request.name, [problem])


def _current_key(connection: Connection, name: str) -> Any:
    """Return the row of the key that a name has, or had last; None for an unknown name."""
    return connection.execute(
        select(_keys)
        .where(_keys.c.name == name, _keys.c.status != REPLACED)
        .order_by(_keys.c.ended_at.is_not(None), _keys.c.approved_at.desc())
    ).first()


def _check_spelling(connection: Connection, name: str) -> None:
    names = connection.execute(select(_keys.c.name).distinct()).scalars().all()
    like = [known for known in names if known.lower() == name.lower() and known != name]
    if like:
        raise ConfigError(
            name, [f"differs from {like[0]} by capital letters alone; give it a name of its own"]
        )


def _other_key(current: Any, request: SiteRequest) -> str:
    since = (
        f"since {_day(current.approved_at)}"
        if current.status == APPROVED
        else f"and was revoked on {_day(current.ended_at)}"
    )
    return (
        f"has another key ({fingerprint(current.public_key)}) {since}; this request is for {request.fingerprint}. Ask "
        "the site by telephone; if it made a new key, approve it with --replace, which ends the earlier one"
    )


def _unknown(connection: Connection, name: str) -> str:
    names = list(connection.execute(select(_keys.c.name).distinct()).scalars())
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return "is not a site here; " + (f"did you mean {near[0]}?" if near else "`hilum admin sites` lists them")


def _site(connection: Connection, name: str) -> RegisteredSite:
    key = _current_key(connection, name)
    newest = connection.execute(
        select(_certificates)
        .where(_certificates.c.public_key == key.public_key)
        .order_by(_certificates.c.number.desc())
    ).first()
    assert newest is not None, "a key enters the registry with a certificate"
    return RegisteredSite(
        name,
        key.status,
        fingerprint(key.public_key),
        key.approved_at,
        newest.not_after,
        newest.first_seen_at,
    )


def _day(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d")
