"""What a request must satisfy before this site does anything that it asks.

The order matters. The signature is checked first, over bytes that nobody has parsed: behind it stands the admin. The
rest of a message (round, weights) is the server's word alone, and is held against what the admin signed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flwr.app import RecordDict

from hilum.common import records
from hilum.common.config import StudyConfig
from hilum.common.errors import RequestRefused
from hilum.common.signing import StudyOrder, verify_study
from hilum.common.weights import FlatWeights, flat_sha256

SENT_ARMS = ("federated", "centralised")
"""What a server may send to be evaluated; every other arm a site makes itself."""


@dataclass(frozen=True)
class Asked:
    """A request that has been checked.

    Attributes:
        order: What the admin signed.
        round_number: Within the study; 0 outside rounds.
        weights: (P,) each and finite: those to train from or to score, or by arm to evaluate.
        start: (P,) what this site's own pre-training starts from, where a file is behind it.
    """

    order: StudyOrder
    round_number: int
    weights: Mapping[str, FlatWeights] = field(repr=False)
    start: FlatWeights | None = field(repr=False, default=None)

    @property
    def study(self) -> StudyConfig:
        """The study."""
        return self.order.study

    @property
    def base(self) -> FlatWeights:
        """(P,) the weights to train from."""
        [base] = self.weights.values()
        return base


def check_request(kind: str, content: RecordDict, *, site: str, key: Ed25519PublicKey, now: float) -> Asked:
    """Check a message of the server.

    Args:
        kind: `records.HELLO`, `SCORE`, `TRAIN` or `EVALUATE`.
        content: The message's.
        site: This site's name.
        key: The admin's, pinned.
        now: Seconds since 1970.

    Raises:
        RequestRefused: What `verify_study` raises, `wrong_format`, `round` or `start`.
    """
    request = records.unpack_request(content)
    order = verify_study(request.signed, key, now=now, site=site)
    _check_round(kind, request.round_number, order.study.federation.rounds)
    given = _check_weights(kind, request, order)
    _check_start(kind, order, request.round_number, given)
    start = given.pop(records.START, None)
    return Asked(order, request.round_number, given, start)


def _check_round(kind: str, round_number: int, rounds: int) -> None:
    first, last = (1, rounds) if kind in {records.TRAIN, records.SCORE} else (0, 0)
    if not first <= round_number <= last:
        raise RequestRefused("round", f"expected a round from {first} to {last}, the server asks for another")


def _check_weights(kind: str, request: records.Request, order: StudyOrder) -> dict[str, FlatWeights]:
    from hilum.common.footprint import footprint_of

    study = order.study
    if kind in {records.TRAIN, records.SCORE}:
        given = {"base": request.base}
    else:
        given = dict(request.weights)
        asked = study.evaluation.arms if kind == records.EVALUATE else ()
        allowed: set[str] = {arm for arm in SENT_ARMS if arm in asked}
        if kind == records.EVALUATE and order.sends_start:
            allowed.add(records.START)
            if records.START not in given:
                raise RequestRefused(
                    "wrong_format", "the weights that the arm `local` starts from are missing"
                )
        if not set(given) <= allowed:
            raise RequestRefused("wrong_format", f"a {kind} request has weights that it may not have")
    expected = footprint_of(study).travelling
    for flat in given.values():
        if flat.shape != (expected,):
            raise RequestRefused("wrong_format", f"expected {expected} weights, found {flat.size}")
        if not np.isfinite(flat).all():
            raise RequestRefused("wrong_format", "the weights have a NaN or an infinity")
    return given


def _check_start(kind: str, order: StudyOrder, round_number: int, given: Mapping[str, FlatWeights]) -> None:
    """Hold what training starts from against the hash that the admin signed."""
    begins = kind == records.TRAIN and round_number == 1
    start = given["base"] if begins else given.get(records.START)
    if order.start_sha256 is not None and start is not None and flat_sha256(start) != order.start_sha256:
        raise RequestRefused("start", "the weights to start from have another hash than the signed one")
