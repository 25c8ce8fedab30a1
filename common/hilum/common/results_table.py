"""What a site measured, as a table: its schema, and what a table must satisfy before anyone believes it.

Both sides share it. The site fills it in; the server takes it for what a stranger sent: bounded text, known words,
finite numbers in their range, about the sender alone, of what the study asked for, each once.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, FailFast, Field, TypeAdapter, ValidationError, with_config

from hilum.common.config.study import EvaluationSection, StudyConfig
from hilum.common.config.tasks import MAX_NUMBER, METRICS, TASKS, TaskSection
from hilum.common.errors import UpdateRefused

MAX_TABLE_BYTES = 4 * 1024 * 1024
MAX_PATIENTS = 10_000_000

_MAX_ROWS = 2000 * len(TASKS)  # of each task at most 10 shares, 6 arms, 5 protocols and so many metrics
_PROTOCOLS_OF = {
    "scratch": {"finetune"},
    "random": {"knn", "linear", "frozen", "lora"},
    "raw": {"knn", "linear"},
}
_SENT_ARMS = {"federated", "centralised"}  # nobody but the server has their weights
_INTERVAL_SLACK = 0.1
"""How far a value may lie outside of its interval, of the metric's range: a percentile interval is about the draws, not about
the value."""
_DIFFERENCE_SLACK = 0.01  # of a comparison, from the two rows that it compares: sites may round
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

_Key = tuple[str, str, float, str, str]  # task, protocol, share, arm, metric
_Line = TypeVar("_Line", "Row", "Comparison")

Word = Annotated[str, Field(max_length=64)]
RowNote = Literal["", "one_class", "one_number", "too_few", "untested_classes", "no_validation"]
"""What a reader of a number must know: every test image was taken for one class, or given one number; there are too few test
patients, or of a class, for a comparison; the mean is over the tested classes, and another class of the site has no test patient;
nobody could be held out of the labelled training patients, so a fine-tuning took all its steps and was not calibrated."""
NOTE_WORDS: dict[str, str] = {
    "one_class": "every test image was taken for one class",
    "one_number": "every test image was given one number",
    "too_few": "too few test patients, or of one class, to be compared",
    "untested_classes": "over the tested classes alone: another class of the site has no test patient",
    "no_validation": "too few labelled patients of a class to hold some out: trained for all steps, and not calibrated",
}
_SPAN = max(max(abs(one.low), abs(one.high), one.high - one.low) for one in METRICS.values())
Number = Annotated[float, Field(ge=-_SPAN, le=_SPAN)]


@with_config(_STRICT)
@dataclass(frozen=True)
class Row:
    """One number with its interval, as `results.json` lists it; `note` says what is the matter with it, if anything."""

    site: Word
    task: Word
    protocol: Word
    label_fraction: Number
    arm: Word
    metric: Word
    value: Number
    ci_low: Number
    ci_high: Number
    n_patients: Annotated[int, Field(ge=1, le=MAX_PATIENTS)]
    note: RowNote = ""


@with_config(_STRICT)
@dataclass(frozen=True)
class Comparison:
    """The federated encoder's value less another arm's, over the same bootstrap draws."""

    site: Word
    task: Word
    protocol: Word
    label_fraction: Number
    arm: Word
    metric: Word
    difference: Number
    ci_low: Number
    ci_high: Number


@with_config(_STRICT)
@dataclass(frozen=True)
class Evaluation:
    """All that one site found."""

    rows: Annotated[tuple[Row, ...], Field(max_length=_MAX_ROWS), FailFast()]
    comparisons: Annotated[tuple[Comparison, ...], Field(max_length=_MAX_ROWS), FailFast()]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "comparisons": [asdict(c) for c in self.comparisons],
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Evaluation":
        """Return the inverse of `to_json`."""
        rows = tuple(Row(**row) for row in table["rows"])
        return cls(rows, tuple(Comparison(**one) for one in table["comparisons"]))


_TABLE = TypeAdapter(Evaluation)


def combinations(
    evaluation: EvaluationSection,
    with_weights: Collection[str],
    task: TaskSection | type[TaskSection] | None = None,
) -> Iterator[tuple[str, float, str]]:
    """Return the protocol, share of the labels and arm of everything that a study measures at a site.

    Args:
        evaluation: The study's.
        with_weights: Arms whose weights are at hand; `scratch`, `random` and `raw` need none.
        task: For which; protocols that do not apply to it are left out.
    """
    for protocol, share, arm in itertools.product(
        evaluation.protocols, evaluation.label_fractions, evaluation.arms
    ):
        known = arm in with_weights or arm in _PROTOCOLS_OF
        if task is not None and protocol not in task.protocols:
            continue
        if known and protocol in _PROTOCOLS_OF.get(arm, {protocol}):
            yield protocol, share, arm


def arms_left_out(evaluation: EvaluationSection, with_weights: Collection[str]) -> list[str]:
    """Return the arms that a study asks for and that `combinations` leaves out, because their weights are not at hand."""
    return [arm for arm in evaluation.arms if arm not in with_weights and arm not in _PROTOCOLS_OF]


def read_table(text: str) -> Evaluation:
    """Parse what a site sent.

    Raises:
        UpdateRefused: `wrong_format`, if it is too long or too deep, no JSON, has another key or type, or a number that
            is not finite or out of every range.
    """
    content = text[: MAX_TABLE_BYTES + 1].encode(errors="replace")
    if len(content) > MAX_TABLE_BYTES:
        raise UpdateRefused("wrong_format", f"the results are longer than {MAX_TABLE_BYTES} bytes")
    try:
        return _TABLE.validate_json(content)
    except ValidationError as error:
        # The problems themselves quote what was sent, and there may be a hundred thousand of them.
        raise UpdateRefused(
            "wrong_format", f"the results are not a table ({error.error_count()} faults)"
        ) from None


def check_table(table: Evaluation, study: StudyConfig, *, site: str, sent: Collection[str]) -> None:
    """Hold a table against the study.

    Args:
        table: From `read_table`.
        study: The study.
        site: Who sent it.
        sent: The arms whose weights the server sent.

    Raises:
        UpdateRefused: `wrong_site`, `not_asked`, `twice`, `out_of_range`, `too_few_patients` or `contradiction`.
    """
    with_weights = {*sent, *study.evaluation.arms} - (_SENT_ARMS - set(sent))
    asked: set[_Key] = {
        (task.kind, *place, metric)
        for task in study.tasks.given
        for place in combinations(study.evaluation, with_weights, task)
        for metric in task.metrics
    }
    rows: dict[_Key, Row] = dict(_checked(table.rows, asked, site))
    comparisons: dict[_Key, Comparison] = dict(_checked(table.comparisons, asked, site))
    for (*_, metric), row in rows.items():
        low, high = METRICS[metric].low, METRICS[metric].high
        if not low <= row.ci_low <= row.ci_high <= high or not low <= row.value <= high:
            raise UpdateRefused("out_of_range", f"{metric} or its interval is not in its range")
        _near(row.value, row.ci_low, row.ci_high, _scale(metric, row.value, row.ci_high))
        if row.n_patients < study.privacy.min_patients:
            needed = study.privacy.min_patients
            raise UpdateRefused("too_few_patients", f"fewer than {needed} patients stand behind a number")
    for (task, protocol, share, arm, metric), one in comparisons.items():
        ours, theirs = (rows.get((task, protocol, share, which, metric)) for which in ("federated", arm))
        if arm == "federated" or ours is None or theirs is None:
            raise UpdateRefused(
                "not_asked", "a comparison is not of the federated arm with another one's row"
            )
        span = METRICS[metric].high - METRICS[metric].low
        if not -span <= one.ci_low <= one.ci_high <= span:
            raise UpdateRefused(
                "out_of_range", "an interval is out of its range, or its ends are the wrong way round"
            )
        _near(one.difference, one.ci_low, one.ci_high, _scale(metric, ours.value, theirs.value))
        if abs(ours.value - theirs.value - one.difference) > _DIFFERENCE_SLACK:
            raise UpdateRefused("contradiction", "a difference is not that of its two rows")


def _checked(lines: Collection[_Line], asked: Collection[_Key], site: str) -> Iterator[tuple[_Key, _Line]]:
    """Return each line with its key, once it is known to be the sender's, asked for, and the first of its key."""
    seen: set[_Key] = set()
    for line in lines:
        if line.site != site:
            raise UpdateRefused("wrong_site", "the results are not the sender's")
        key = (line.task, line.protocol, line.label_fraction, line.arm, line.metric)
        if key not in asked:
            raise UpdateRefused("not_asked", "the study did not ask for one of the lines")
        if key in seen:
            raise UpdateRefused("twice", "a line is there twice")
        seen.add(key)
        yield key, line


def _scale(metric: str, *values: float) -> float:
    """Return what a metric's values are small or large against: its range, or, in the unit of a label, the values."""
    span = METRICS[metric].high - METRICS[metric].low
    return max(map(abs, values)) if span >= MAX_NUMBER else span


def _near(value: float, low: float, high: float, scale: float) -> None:
    slack = _INTERVAL_SLACK * scale
    if not low - slack <= value <= high + slack:
        raise UpdateRefused("out_of_range", f"a value lies more than {slack:.3g} outside of its interval")
