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
from hilum.common.weights import FlatWeights

SENT_ARMS = ("federated", "centralised")
"""What a server may send to be evaluated; every other arm a site makes itself."""


@dataclass(frozen=True)
class Asked:
    """A request that has been checked.

    Attributes:
        order: What the admin signed.
        round_number: Within the study; 0 outside rounds.
        weights: (P,) each and finite: those to train from or to score, or by arm to evaluate.
    """

    order: StudyOrder
    round_number: int
    weights: Mapping[str, FlatWeights] = field(repr=False)

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
        RequestRefused: What `verify_study` raises, `wrong_format` or `round`.
    """
    request = records.unpack_request(content)
    order = verify_study(request.signed, key, now=now, site=site)
    _check_round(kind, request.round_number, order.study.federation.rounds)
    _check_weights(kind, request, order.study)
    return Asked(order, request.round_number, request.weights)


def _check_round(kind: str, round_number: int, rounds: int) -> None:
    first, last = (1, rounds) if kind in {records.TRAIN, records.SCORE} else (0, 0)
    if not first <= round_number <= last:
        raise RequestRefused("round", f"expected a round from {first} to {last}, the server asks for another")


def _check_weights(kind: str, request: records.Request, study: StudyConfig) -> None:
    from hilum.common.footprint import footprint_of

    if kind in {records.TRAIN, records.SCORE}:
        given = {"base": request.base}
    else:
        given = dict(request.weights)
        allowed = set(study.evaluation.arms) & set(SENT_ARMS) if kind == records.EVALUATE else set()
        if not set(given) <= allowed:
            raise RequestRefused("wrong_format", f"a {kind} request has weights that it may not have")
    expected = footprint_of(study).travelling
    for flat in given.values():
        if flat.shape != (expected,):
            raise RequestRefused("wrong_format", f"expected {expected} weights, found {flat.size}")
        if not np.isfinite(flat).all():
            raise RequestRefused("wrong_format", "the weights have a NaN or an infinity")
