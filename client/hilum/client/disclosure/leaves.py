"""All that may leave a site for the server: the list of values with their rules.

The list is closed; `hilum.client.disclosure.outgoing` sends nothing else. The page docs/reference/what-leaves.md is made from it.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import numpy as np

from hilum.common import records
from hilum.common.config import StudyConfig
from hilum.common.config.base import NAME_PATTERN
from hilum.common.config.study import Arm, Protocol
from hilum.common.config.tasks import METRICS, TASKS
from hilum.common.refusals import REFUSALS
from hilum.common.results_table import RowNote
from hilum.common.training_health import HEALTH, bounded
from hilum.common.weights import MAX_ABS_CHANGE

REFUSAL = "refusal"
_LOW, _HIGH = min(one.low for one in METRICS.values()), max(one.high for one in METRICS.values())
_SPAN = max(one.high - one.low for one in METRICS.values())
_IN_UNITS = [one.words for one in METRICS.values() if one.high > 1]
DECIMALS = 3
"""Of a metric."""
_DIGITS = 4


@dataclass(frozen=True)
class Limits:
    """What the rules depend on.

    Attributes:
        threshold: `privacy.min_patients` of the study.
        rounds: Of the study.
        size: P, how many weights travel.
        fractions: The study's shares of labels.
    """

    threshold: int = 1
    rounds: int = 0
    size: int = 0
    fractions: tuple[float, ...] = ()

    @classmethod
    def of(cls, study: StudyConfig, size: int = 0) -> "Limits":
        """Return the limits that a study sets."""
        return cls(
            study.privacy.min_patients, study.federation.rounds, size, study.evaluation.label_fractions
        )


@dataclass(frozen=True)
class Value:
    """One line of the list.

    Attributes:
        message: `query` (a greeting), `train`, `evaluate`, or `refusal`, which may answer each of them.
        record: The record of the message that holds it.
        key: Its key there; inside the table of an evaluation, `rows` or `comparisons` and the column.
        kind: Its type.
        rule: What it is, and how it was made harmless; for people.
        bound: Its bound; for people.
        holds: The same as a check.
    """

    message: str
    record: str
    key: str
    kind: type
    rule: str
    bound: str
    holds: Callable[[Any, Limits], bool] = field(repr=False)


def _is_name(value: Any, _limits: Limits) -> bool:
    return re.fullmatch(NAME_PATTERN, value) is not None


def _is_band(value: Any, limits: Limits) -> bool:
    return bool(value >= limits.threshold and value % limits.threshold == 0)


def _is_rounded(value: Any, _limits: Limits) -> bool:
    return math.isfinite(value) and value == round(value, DECIMALS) and -_SPAN <= value <= _SPAN


def _is_metric(value: Any, limits: Limits) -> bool:
    return _is_rounded(value, limits) and bool(_LOW <= value <= _HIGH)


def _is_score(value: Any, limits: Limits) -> bool:
    return _is_rounded(value, limits) and bool(records.MIN_SCORE <= value <= records.MAX_SCORE)


def _is_health(name: str, value: Any, _limits: Limits) -> bool:
    return bounded(name, value) and bool(value == significant(value))


def _is_update(value: Any, limits: Limits) -> bool:
    return bool(
        value.shape == (limits.size,)
        and np.isfinite(value).all()
        and np.abs(value).max(initial=0) <= MAX_ABS_CHANGE
    )


def _is_table(value: Any, _limits: Limits) -> bool:
    table = json.loads(value)
    return isinstance(table, dict) and set(table) == {"rows", "comparisons"}


_NAME = ("the site's name, as its certificate has it", "letters, digits, '.', '_', '-'; 64 characters")
_ROUND = (
    "the round that was asked for",
    "1 to the study's rounds",
    lambda value, limits: bool(1 <= value <= limits.rounds),
)
_BAND = (
    "how many images the site trains on, no patient counting for more than the threshold-th largest does; one number a run",
    "a multiple of the threshold of patients, rounded down",
)
_HEALTH_FROM = "of all steps of a round, or of images of as many training patients as there are, at most 32 or the threshold"
_METRIC = "over all test patients, at least as many as the threshold"
_INTERVAL = "of its 95 % interval over patients"
_ROUNDED = (
    f"{_LOW:g} to {_HIGH:g}, three decimals, in the range of its metric; above 1, {' and '.join(_IN_UNITS)} alone, in the "
    "label's unit or, of distances, in millimetres"
)
_DIFFERENCE = f"{-_SPAN:g} to {_SPAN:g}, three decimals, in the width of its metric's range"

_Line = tuple[str, type, str, str, Callable[[Any, Limits], bool]]
_SHARED: tuple[_Line, ...] = (
    ("site", str, *_NAME, _is_name),
    ("task", str, "the task's name", ", ".join(TASKS), lambda value, _: value in TASKS),
    (
        "protocol",
        str,
        "how it was measured",
        ", ".join(get_args(Protocol)),
        lambda value, _: value in get_args(Protocol),
    ),
    (
        "label_fraction",
        float,
        "the share of labelled training patients that was used",
        "one of the study's",
        lambda value, limits: value in limits.fractions,
    ),
    ("arm", str, "whose encoder", ", ".join(get_args(Arm)), lambda value, _: value in get_args(Arm)),
    ("metric", str, "which metric", ", ".join(METRICS), lambda value, _: value in METRICS),
)
_ROW: tuple[_Line, ...] = (
    *_SHARED,
    ("value", float, f"the metric {_METRIC}", _ROUNDED, _is_metric),
    ("ci_low", float, f"the lower end {_INTERVAL}", _ROUNDED, _is_metric),
    ("ci_high", float, f"the upper end {_INTERVAL}", _ROUNDED, _is_metric),
    (
        "n_patients",
        int,
        "how many test patients there are",
        "a multiple of the threshold of patients, rounded down",
        _is_band,
    ),
    (
        "note",
        str,
        "what is the matter with the number, if anything",
        ", ".join(note or "nothing" for note in get_args(RowNote)),
        lambda value, _: value in get_args(RowNote),
    ),
)
_COMPARISON: tuple[_Line, ...] = (
    *_SHARED,
    ("difference", float, f"federated minus this arm, {_METRIC}", _DIFFERENCE, _is_rounded),
    ("ci_low", float, f"the lower end {_INTERVAL}", _DIFFERENCE, _is_rounded),
    ("ci_high", float, f"the upper end {_INTERVAL}", _DIFFERENCE, _is_rounded),
)

LEAVES: tuple[Value, ...] = (
    Value(records.HELLO, "facts", "site", str, *_NAME, _is_name),
    Value(records.HELLO, "numbers", "examples", int, *_BAND, _is_band),
    Value(records.SCORE, "facts", "site", str, *_NAME, _is_name),
    Value(records.SCORE, "facts", "round", int, *_ROUND),
    Value(
        records.SCORE,
        "numbers",
        "score",
        float,
        "the first task's primary metric by nearest neighbours, cross-validated by patient, over all labelled training patients, at "
        'least as many as the threshold; only in a study with training.select = "knn"',
        f"{records.MIN_SCORE:g} to {records.MAX_SCORE:g}, three decimals",
        _is_score,
    ),
    Value(records.TRAIN, "facts", "site", str, *_NAME, _is_name),
    Value(records.TRAIN, "facts", "round", int, *_ROUND),
    Value(
        records.TRAIN,
        "facts",
        "base_sha256",
        str,
        "SHA-256 of the weights that the server had sent",
        "64 hexadecimal digits",
        lambda value, _: re.fullmatch(r"[0-9a-f]{64}", value) is not None,
    ),
    Value(records.TRAIN, "numbers", "examples", int, *_BAND, _is_band),
    Value(
        records.TRAIN,
        "numbers",
        "loss",
        float,
        "the mean training loss over all steps of the round",
        "finite, four significant digits",
        lambda value, _: math.isfinite(value) and value == significant(value),
    ),
    Value(
        records.TRAIN,
        "numbers",
        "seconds",
        float,
        "how long the round took",
        "whole seconds",
        lambda value, _: math.isfinite(value) and value >= 0 and value == round(value),
    ),
    *(
        Value(
            records.TRAIN,
            "numbers",
            name,
            float,
            f"{number.words}; {_HEALTH_FROM}",
            f"{number.low:g} to {number.high:g}, four significant digits",
            partial(_is_health, name),
        )
        for name, number in HEALTH.items()
    ),
    Value(
        records.TRAIN,
        "arrays",
        "update",
        np.ndarray,
        "trained weights minus the weights received, of the parts that travel",
        f"float32, as many values as the study's weights, each within {MAX_ABS_CHANGE:g}; with "
        "privacy.max_update_norm of that norm at most",
        _is_update,
    ),
    Value(records.EVALUATE, "facts", "site", str, *_NAME, _is_name),
    Value(
        records.EVALUATE,
        "facts",
        "evaluation",
        str,
        "a table as JSON with the columns below and no others",
        "one row for each protocol, share of labels, arm and metric",
        _is_table,
    ),
    *(Value(records.EVALUATE, "facts", f"evaluation: rows: {line[0]}", *line[1:]) for line in _ROW),
    *(
        Value(records.EVALUATE, "facts", f"evaluation: comparisons: {line[0]}", *line[1:])
        for line in _COMPARISON
    ),
    Value(REFUSAL, "facts", "site", str, *_NAME, _is_name),
    Value(
        REFUSAL,
        "facts",
        "refused",
        str,
        "a code for why the site says no",
        "one of `hilum.common.refusals`",
        lambda value, _: value in REFUSALS,
    ),
)
"""Every value that may leave a site for the server."""


def as_markdown() -> str:
    """Return the list as a table, for docs/reference/what-leaves.md."""
    names = {
        records.HELLO: "greeting",
        records.SCORE: "score",
        records.TRAIN: "update",
        records.EVALUATE: "results",
        REFUSAL: "refusal",
    }
    kinds = {str: "text", int: "whole number", float: "number", np.ndarray: "array"}
    lines = [
        f"| {names[one.message]} | `{one.record}` | `{one.key}` | {kinds[one.kind]} | {one.rule} | {one.bound} |"
        for one in LEAVES
    ]
    head = ["| message | record | key | type | what it is | bound |", "| --- | --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *lines])


def significant(value: float) -> float:
    """Round a number to what of it may leave."""
    return float(f"{value:.{_DIGITS}g}")
