"""A study under the admin's signature (Ed25519, RFC 8032): all that a site takes orders from.

The admin signs which study, under which name, for which sites, by which version of Hilum, and until when. A site has
the admin's public key in its own link file, so the server between them can neither write a study nor change one.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import Field, JsonValue, ValidationError

from hilum.common import __version__
from hilum.common.config.base import Name, Section
from hilum.common.config.encoders.init import Sha256
from hilum.common.config.load import parse_study, with_init_file
from hilum.common.config.resume import differences, in_words, lasting
from hilum.common.config.study import MAX_SITES, StudyConfig
from hilum.common.errors import ConfigError, RequestRefused

MAX_DOCUMENT_BYTES = 64 * 1024
MAX_DAYS = 366
CLOCK_TOLERANCE_S = 600
"""How far in the future a study may have been signed: clocks differ."""

_CONTEXT = b"hilum study 1\0"  # a signature over anything else is none over a study
_KEY_PREFIX = "ed25519:"
_SIGNATURE_BYTES = 64
_DAY_S = 86_400


@dataclass(frozen=True)
class SignedStudy:
    """A study as it travels: the signed bytes, at most `MAX_DOCUMENT_BYTES`, and the signature, 64 bytes."""

    document: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True)
class StudyOrder:
    """What a signed study says, once its signature was checked.

    Attributes:
        run: Names the run: a name, never a path.
        sites: The names of the sites that it is for.
        terms: SHA-256 over sites, version, start and what of the study may not change when a run is submitted again to
            be resumed, in hex.
        start_sha256: Of the weights that the first round starts from (`hilum.common.start`), where a file is behind them;
            None where the study's seed decides them.
    """

    study: StudyConfig
    run: str
    sites: tuple[str, ...]
    terms: str
    start_sha256: str | None = None

    @property
    def sends_start(self) -> bool:
        """Whether the start goes with the request to evaluate: a site trains the arm `local` from it, and has no file."""
        return self.start_sha256 is not None and "local" in self.study.evaluation.arms


class _Document(Section):
    kind: Literal["hilum-study"]
    hilum: Annotated[str, Field(max_length=64)]
    run: Name
    sites: Annotated[tuple[Name, ...], Field(strict=False, min_length=1, max_length=MAX_SITES)]
    issued: Annotated[int, Field(ge=0, lt=2**40)]
    expires: Annotated[int, Field(ge=0, lt=2**40)]
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    start: Sha256 | None = None
    study: dict[str, JsonValue]


def sign_study(
    study: StudyConfig,
    *,
    run: str,
    sites: Sequence[str],
    days: float,
    now: float,
    key: Ed25519PrivateKey,
    start: str | None = None,
) -> SignedStudy:
    """Sign a study. Of the file that it may start from, the name alone is signed: where it lies concerns nobody else.

    Args:
        study: The study.
        run: The run's name.
        sites: Names of the sites it is for.
        days: For how long, at most `MAX_DAYS`.
        now: Seconds since 1970.
        key: The admin's.
        start: SHA-256 of the weights that the first round starts from, where a file is behind them.

    Raises:
        ConfigError: If a name is not a name, the sites are not as many as the study says, or the time is out of range.
    """
    assert (start is None) == (study.encoder.init is None), "a file, and what came out of it"
    if len(set(sites)) != len(sites) or len(sites) != study.federation.sites:
        problem = (
            f"federation.sites = {study.federation.sites}, but {len(set(sites))} different sites are named "
            f"({', '.join(sites)}); make the two agree"
        )
        raise ConfigError("study", [problem])
    if not 0 < days <= MAX_DAYS:
        raise ConfigError(
            "study", [f"a signature lasts more than 0 and at most {MAX_DAYS} days, not {days:g}"]
        )
    table = {
        "kind": "hilum-study",
        "hilum": __version__,
        "run": run,
        "sites": sorted(sites),
        "issued": int(now),
        "expires": int(now + days * _DAY_S),
        "nonce": secrets.token_hex(16),
        "study": with_init_file(study, study.encoder.init.name if study.encoder.init else "").model_dump(
            mode="json"
        ),
    }
    if start is not None:
        table["start"] = start
    try:
        _Document.model_validate(table)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ConfigError(
            "study", [f"`{where}` can't be signed: {error.errors()[0]['msg'].lower()}"]
        ) from None
    document = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    return SignedStudy(document, key.sign(_CONTEXT + document))


def verify_study(signed: SignedStudy, key: Ed25519PublicKey, *, now: float, site: str | None) -> StudyOrder:
    """Check a signed study; nothing of the document is parsed before its signature holds.

    Args:
        signed: As it arrived.
        key: The admin's public key, pinned.
        now: Seconds since 1970.
        site: This site's name; None at the server, which serves all of them.

    Raises:
        RequestRefused: `unsigned`, `wrong_format`, `version`, `not_yet_valid`, `expired`, `not_invited`, `config`.
    """
    if len(signed.document) > MAX_DOCUMENT_BYTES or len(signed.signature) != _SIGNATURE_BYTES:
        raise RequestRefused("wrong_format", "the signed study is too long, or its signature is none")
    try:
        key.verify(signed.signature, _CONTEXT + signed.document)
    except InvalidSignature:
        raise RequestRefused("unsigned", "the signature is not the pinned admin key's") from None
    try:
        table = _Document.model_validate_json(signed.document)
    except ValidationError as error:
        kinds = sorted({problem["type"] for problem in error.errors()})
        raise RequestRefused(
            "wrong_format", f"the signed document has problems: {', '.join(kinds)}"
        ) from None
    if table.hilum != __version__:
        raise RequestRefused("version", f"the study is for Hilum {table.hilum}, this is {__version__}")
    if table.issued > now + CLOCK_TOLERANCE_S:
        minutes = (table.issued - now) / 60
        raise RequestRefused("not_yet_valid", f"the study was signed {minutes:.0f} minutes in the future")
    if table.expires <= now:
        raise RequestRefused("expired", f"the signature expired {(now - table.expires) / 60:.0f} minutes ago")
    if site is not None and site not in table.sites:
        raise RequestRefused("not_invited", f"the study is for {', '.join(table.sites)}, not for {site}")
    try:
        study = parse_study(dict(table.study))
    except ConfigError as error:
        raise RequestRefused("config", str(error)) from None
    if (table.start is None) != (study.encoder.init is None):
        raise RequestRefused(
            "wrong_format", "a study has encoder.init, and the hash of its start, or neither"
        )
    lasts = [table.hilum, table.sites, lasting(table.study), *([] if table.start is None else [table.start])]
    terms = json.dumps(lasts, sort_keys=True, separators=(",", ":"))
    return StudyOrder(
        study=study,
        run=table.run,
        sites=table.sites,
        terms=hashlib.sha256(terms.encode()).hexdigest(),
        start_sha256=table.start,
    )


def changes(before: bytes, now: bytes) -> str:
    """Return what keeps one signed document from going on with the run of another, in words; both were verified before."""
    old, new = (json.loads(document) for document in (before, now))
    tables = [
        {
            "sites": one["sites"],
            "version of Hilum": one["hilum"],
            "start weights": one.get("start"),
            **one["study"],
        }
        for one in (old, new)
    ]
    return in_words(differences(*tables))


def public_text(key: Ed25519PublicKey) -> str:
    """Return a public key as link files have it: `ed25519:` and base64."""
    return _KEY_PREFIX + base64.b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def public_key_of(text: str) -> Ed25519PublicKey:
    """Return the inverse of `public_text`.

    Raises:
        ConfigError: If it is none.
    """
    try:
        raw = base64.b64decode(text.removeprefix(_KEY_PREFIX), validate=True)
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        problem = "is not an Ed25519 public key (`ed25519:` and base64); copy it from the admin's link file"
        raise ConfigError("study_key", [problem]) from None
