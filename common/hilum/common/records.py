"""What goes over the wire: every message, its keys, and how it is packed and unpacked.

What a site sends is held besides against `hilum.client.disclosure.leaves`: a key without a rule there does not leave. A field takes its key, packing and unpacking here; who fills it in, and who checks it: a
site's are filled in by `hilum.client.app` and checked by `hilum.server.federation.admission` or `greeting`, the server's are filled in
by `rounds` or `run_study` there and checked by `hilum.client.incoming`.

A model or an update is one flat array of little-endian float32, not one object a tensor, and never a pickle. A study
travels as the bytes that the admin signed: every site checks signature and content again.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app.typing import ConfigRecordValues, MetricRecordValues

from hilum.common.config.base import NAME_PATTERN
from hilum.common.config.tasks import METRICS, TASKS
from hilum.common.errors import RequestRefused, UpdateRefused
from hilum.common.refusals import REFUSALS
from hilum.common.results_table import read_table
from hilum.common.signing import MAX_DOCUMENT_BYTES, SignedStudy
from hilum.common.training_health import HEALTH
from hilum.common.weights import FlatWeights

# Flower's names for the kinds of message
HELLO, SCORE, TRAIN, EVALUATE = "query", "query.score", "train", "evaluate"
MIN_SCORE = min(METRICS[task.primary()].low for task in TASKS.values())
MAX_SCORE = max(METRICS[task.primary()].high for task in TASKS.values())
_ARRAYS, _FACTS, _NUMBERS = "arrays", "facts", "numbers"
_UPDATE = "update"
_WEIGHTS = "weights"
START = "start"
"""Beside the arms to evaluate: what the site's own pre-training starts from, where a file is behind it."""
_MAX_ARRAYS = 8  # of a request: one, or one an arm
_STYPE = "hilum.flat"
_BYTES_EACH = 4


@dataclass(frozen=True)
class Request:
    """What the server asks of a site.

    Attributes:
        signed: The study, under the admin's signature.
        round_number: From 1; 0 outside rounds.
        weights: By name: `weights` to train from, or one an arm to evaluate and, beside them, `START`.
    """

    signed: SignedStudy
    round_number: int
    weights: Mapping[str, FlatWeights] = field(repr=False)

    @property
    def base(self) -> FlatWeights:
        """The weights to train from.

        Raises:
            RequestRefused: `wrong_format`, if there are none.
        """
        if list(self.weights) != [_WEIGHTS]:
            raise RequestRefused("wrong_format", "expected one array of weights to train from")
        return self.weights[_WEIGHTS]


@dataclass(frozen=True)
class Hello:
    """A site tells who it is and, rounded down to a band, how many images it can train on."""

    site: str
    examples: int


@dataclass(frozen=True)
class TrainReply:
    """A site's update after a round; see `SiteUpdate`. Its health is by the names of `hilum.common.training_health`."""

    site: str
    round_number: int
    base_sha256: str
    examples: int
    loss: float
    seconds: float
    health: Mapping[str, float]
    update: FlatWeights = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """What the update weighs on the wire."""
        return int(self.update.nbytes)


@dataclass(frozen=True)
class ScoreReply:
    """How good the encoder after a round is on a site's validation patients."""

    site: str
    round_number: int
    score: float


@dataclass(frozen=True)
class EvaluateReply:
    """What a site measured; see `hilum.common.results_table`."""

    site: str
    evaluation: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Refusal:
    """A site did not do what was asked. The code is one of `hilum.common.refusals.REFUSALS`; nothing else leaves."""

    site: str
    code: str


def pack_request(
    signed: SignedStudy, *, round_number: int = 0, weights: Mapping[str, FlatWeights] | None = None
) -> RecordDict:
    """Return a request as Flower carries it."""
    facts: dict[str, ConfigRecordValues] = {
        "document": signed.document,
        "signature": signed.signature,
        "round": round_number,
    }
    arrays = {name: _pack(flat) for name, flat in (weights or {}).items()}
    return RecordDict({_FACTS: ConfigRecord(facts), _ARRAYS: ArrayRecord(arrays)})


def pack_training_request(signed: SignedStudy, round_number: int, base: FlatWeights) -> RecordDict:
    """Return a request to train one round from `base`, or to score what a round gave."""
    return pack_request(signed, round_number=round_number, weights={_WEIGHTS: base})


def unpack_request(content: RecordDict) -> Request:
    """Return the inverse of `pack_request`.

    Raises:
        RequestRefused: `wrong_format`, if a part is missing, of another kind, too many or too long.
    """
    try:
        with _well_formed():
            facts = _facts_of(content, {_FACTS, _ARRAYS}, {"document", "signature", "round"})
            arrays = _part(content, _ARRAYS, ArrayRecord)
            return Request(
                signed=SignedStudy(
                    _bytes(facts["document"], MAX_DOCUMENT_BYTES),
                    _bytes(facts["signature"], MAX_DOCUMENT_BYTES),
                ),
                round_number=_whole(facts["round"]),
                weights={str(name): _unpack(array) for name, array in _few(arrays).items()},
            )
    except UpdateRefused as refused:
        raise RequestRefused("wrong_format", refused.detail) from None


def pack_hello(hello: Hello) -> RecordDict:
    """Return a greeting as Flower carries it."""
    return RecordDict(
        {_FACTS: ConfigRecord({"site": hello.site}), _NUMBERS: MetricRecord({"examples": hello.examples})}
    )


def unpack_hello(content: RecordDict) -> Hello:
    """Return the inverse of `pack_hello`.

    Raises:
        UpdateRefused: If a part is missing or of another kind.
    """
    with _well_formed():
        numbers = _part(content, _NUMBERS, MetricRecord)
        return Hello(sender_of(content), _whole(numbers["examples"]))


def sender_of(content: RecordDict) -> str:
    """Return the name that a reply's sender gives itself: a claim.

    Raises:
        UpdateRefused: If there is none, or it is not a name.
    """
    with _well_formed():
        site = _text(_part(content, _FACTS, ConfigRecord)["site"])
        if not re.fullmatch(NAME_PATTERN, site):
            raise UpdateRefused("wrong_format", "the site's name is not a name")
        return site


def pack_training_reply(reply: TrainReply) -> RecordDict:
    """Return an update as Flower carries it."""
    facts: dict[str, ConfigRecordValues] = {
        "site": reply.site,
        "round": reply.round_number,
        "base_sha256": reply.base_sha256,
    }
    numbers: dict[str, MetricRecordValues] = {
        "examples": reply.examples,
        "loss": reply.loss,
        "seconds": reply.seconds,
        **reply.health,
    }
    return RecordDict(
        {
            _FACTS: ConfigRecord(facts),
            _NUMBERS: MetricRecord(numbers),
            _ARRAYS: ArrayRecord({_UPDATE: _pack(reply.update)}),
        }
    )


def unpack_training_reply(content: RecordDict) -> TrainReply:
    """Return the inverse of `pack_training_reply`.

    Raises:
        UpdateRefused: If a part is missing, of another kind, or not what it says it is.
    """
    with _well_formed():
        facts, numbers = _part(content, _FACTS, ConfigRecord), _part(content, _NUMBERS, MetricRecord)
        return TrainReply(
            site=_text(facts["site"]),
            round_number=_whole(facts["round"]),
            base_sha256=_text(facts["base_sha256"]),
            examples=_whole(numbers["examples"]),
            loss=_real(numbers["loss"]),
            seconds=_real(numbers["seconds"]),
            health={name: _real(numbers[name]) for name in HEALTH},
            update=_unpack(_part(content, _ARRAYS, ArrayRecord)[_UPDATE]),
        )


def pack_score_reply(reply: ScoreReply) -> RecordDict:
    """Return a score as Flower carries it."""
    facts: dict[str, ConfigRecordValues] = {"site": reply.site, "round": reply.round_number}
    return RecordDict({_FACTS: ConfigRecord(facts), _NUMBERS: MetricRecord({"score": reply.score})})


def unpack_score_reply(content: RecordDict) -> ScoreReply:
    """Return the inverse of `pack_score_reply`.

    Raises:
        UpdateRefused: If a part is missing or of another kind.
    """
    with _well_formed():
        facts, numbers = _part(content, _FACTS, ConfigRecord), _part(content, _NUMBERS, MetricRecord)
        return ScoreReply(_text(facts["site"]), _whole(facts["round"]), _real(numbers["score"]))


def pack_evaluation_reply(reply: EvaluateReply) -> RecordDict:
    """Results as Flower carries them."""
    return RecordDict(
        {_FACTS: ConfigRecord({"site": reply.site, "evaluation": json.dumps(reply.evaluation)})}
    )


def unpack_evaluation_reply(content: RecordDict) -> EvaluateReply:
    """Return the inverse of `pack_evaluation_reply`.

    Raises:
        UpdateRefused: If it is not a table as `hilum.common.results_table` has it; whether the study asked for it, and
            whose it is, is checked there too.
    """
    with _well_formed():
        facts = _part(content, _FACTS, ConfigRecord)
        return EvaluateReply(_text(facts["site"]), read_table(_text(facts["evaluation"])).to_json())


def pack_refusal(refusal: Refusal) -> RecordDict:
    """Return a refusal as Flower carries it."""
    assert refusal.code in REFUSALS, "only listed codes leave a site"
    return RecordDict({_FACTS: ConfigRecord({"site": refusal.site, "refused": refusal.code})})


def unpack_refusal(content: RecordDict) -> Refusal | None:
    """Return the refusal in a reply, or None if it is an answer.

    Raises:
        UpdateRefused: If it is neither, or its code is none that a site may send.
    """
    with _well_formed():
        facts = _part(content, _FACTS, ConfigRecord)
        if "refused" not in facts:
            return None
        if (code := _text(facts["refused"])) not in REFUSALS:
            raise UpdateRefused("wrong_format", "a refusal with a code that is not on the list")
        return Refusal(sender_of(content), code)


@contextmanager
def _well_formed() -> Iterator[None]:
    """Turn whatever a malformed message makes Python raise into a refusal with a reason."""
    try:
        yield
    except UpdateRefused:
        raise
    except Exception as error:
        raise UpdateRefused(
            "wrong_format", f"a part is missing or of another kind ({type(error).__name__})"
        ) from None


_Part = TypeVar("_Part", ArrayRecord, ConfigRecord, MetricRecord)


def _part(content: RecordDict, name: str, kind: type[_Part]) -> _Part:
    """Return one record of a message.

    Not by `content.array_records`: that view refers to the message and the message to it, so the garbage collector
    alone could free either, and would not in time: every update of a round stayed in memory.
    """
    part = content[name]
    if not isinstance(part, kind):
        raise UpdateRefused("wrong_format", f"expected a part of another kind than {type(part).__name__}")
    return part


def _facts_of(content: RecordDict, names: set[str], keys: set[str]) -> ConfigRecord:
    """Return the facts of a message that has these records and these facts and no others."""
    if set(content) != names or set(facts := _part(content, _FACTS, ConfigRecord)) != keys:
        raise UpdateRefused("wrong_format", "expected other records")
    return facts


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UpdateRefused("wrong_format", "expected text")
    return value


def _few(arrays: ArrayRecord) -> ArrayRecord:
    if len(arrays) > _MAX_ARRAYS:
        raise UpdateRefused("wrong_format", f"expected at most {_MAX_ARRAYS} arrays")
    return arrays


def _bytes(value: Any, at_most: int) -> bytes:
    if not isinstance(value, bytes) or len(value) > at_most:
        raise UpdateRefused("wrong_format", f"expected at most {at_most} bytes")
    return value


def _pack(flat: FlatWeights) -> Array:
    return Array("float32", (int(flat.size),), _STYPE, np.ascontiguousarray(flat, "<f4").tobytes())


def _unpack(array: Array) -> FlatWeights:
    size = array.shape[0] if len(array.shape) == 1 else -1
    if array.stype != _STYPE or array.dtype != "float32" or size * _BYTES_EACH != len(array.data):
        raise UpdateRefused("wrong_format", "expected one flat float32 array")
    return np.frombuffer(array.data, "<f4").astype(np.float32, copy=False)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UpdateRefused("wrong_format", "expected a whole number")
    return value


def _real(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UpdateRefused("wrong_format", "expected a number")
    return float(value)
