"""The only functions that make what a site sends, and the check that it is on the list (`hilum.client.disclosure.leaves`).

A reply that holds anything else, or a value that breaks its rule, is refused before it is sent. Tests hold every byte of every
reply to the same list.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from hilum.client.disclosure.counts import rounded_down
from hilum.client.disclosure.leaves import DECIMALS, LEAVES, REFUSAL, Limits, significant
from hilum.common import records
from hilum.common.config.tasks import METRICS
from hilum.common.errors import RequestRefused
from hilum.common.results_table import Evaluation
from hilum.common.training_health import HEALTH
from hilum.common.weights import FlatWeights


def hello(site: str, examples: int, limits: Limits) -> RecordDict:
    """Return a greeting; `examples` is a band (`counts.banded_total`)."""
    return _checked(records.HELLO, records.pack_hello(records.Hello(site, examples)), limits)


def training_reply(
    site: str,
    *,
    round_number: int,
    base_sha256: str,
    examples: int,
    loss: float,
    seconds: float,
    health: Mapping[str, float],
    update: FlatWeights,
    limits: Limits,
) -> RecordDict:
    """Return a site's update after a round.

    Args:
        site: Its name.
        round_number: As it was asked.
        base_sha256: Of the weights received.
        examples: The band that the greeting told.
        loss: Mean of the round.
        seconds: Of the round.
        health: By the names of `hilum.common.training_health`.
        update: (P,).
        limits: The study's.

    Raises:
        RequestRefused: `failed`, if loss, health or update are not finite: the training diverged.
    """
    if not np.isfinite([loss, *health.values()]).all() or not np.isfinite(update).all():
        raise RequestRefused(
            "failed", "the training diverged: its loss, its gradients or its weights are not finite"
        )
    reply = records.TrainReply(
        site=site,
        round_number=round_number,
        base_sha256=base_sha256,
        examples=examples,
        loss=significant(loss),
        seconds=float(round(seconds)),
        health={name: significant(health[name]) for name in HEALTH},
        update=np.asarray(update, np.float32),
    )
    return _checked(records.TRAIN, records.pack_training_reply(reply), limits)


def score_reply(site: str, *, round_number: int, score: float, patients: int, limits: Limits) -> RecordDict:
    """Return how good the encoder after a round is on validation patients.

    Args:
        site: Its name.
        round_number: As it was asked.
        score: Of the task's primary metric.
        patients: How many stand behind it.
        limits: The study's.

    Raises:
        RequestRefused: `too_few_patients`, if they are fewer than the threshold; `data`, if the score is not defined.
    """
    if patients < limits.threshold:
        raise RequestRefused("too_few_patients", "too few labelled training patients stand behind the score")
    if not math.isfinite(score):
        raise RequestRefused("data", "the score is not defined: the training patients lack a class")
    return _checked(
        records.SCORE,
        records.pack_score_reply(records.ScoreReply(site, round_number, round(score, DECIMALS))),
        limits,
    )


def evaluation_table(evaluation: Evaluation, limits: Limits) -> dict[str, Any]:
    """Return what may be told of an evaluation: rounded numbers, banded patients; rows without a finite number are left out.

    Raises:
        RequestRefused: `too_few_patients`, if fewer test patients than the threshold stand behind it; `data`, if no row
            is left.
    """
    content = evaluation.to_json()
    rows = [_rounded(row) for row in content["rows"] if _finite(row)]
    for row in rows:
        banded = rounded_down(row["n_patients"], limits.threshold)
        if banded is None:
            raise RequestRefused("too_few_patients", "too few test patients stand behind the metrics")
        row["n_patients"] = banded
    if not rows:
        raise RequestRefused("data", "no metric is defined: the test patients lack a class")
    comparisons = [_rounded(one) for one in content["comparisons"] if _finite(one)]
    return {"rows": rows, "comparisons": comparisons}


def evaluation_reply(site: str, table: dict[str, Any], limits: Limits) -> RecordDict:
    """Return the results that `evaluation_table` made."""
    reply = records.EvaluateReply(site, table)
    return _checked(records.EVALUATE, records.pack_evaluation_reply(reply), limits)


def refusal(site: str, code: str) -> RecordDict:
    """Return a refusal: a code and no more."""
    return _checked(REFUSAL, records.pack_refusal(records.Refusal(site, code)), Limits())


def size_bytes(content: RecordDict) -> int:
    """Return what a reply weighs on the wire, without Flower's envelope."""
    arrays = [array for part in content.values() if isinstance(part, ArrayRecord) for array in part.values()]
    texts = [
        str(value)
        for part in content.values()
        if not isinstance(part, ArrayRecord)
        for value in part.values()
    ]
    return sum(len(array.data) for array in arrays) + sum(map(len, texts))


def check(message: str, content: RecordDict, limits: Limits) -> list[str]:
    """Return what in a reply is not on the list or breaks its rule; empty if nothing."""
    listed = {(one.record, one.key): one for one in LEAVES if one.message == message}
    problems, seen = [], set()
    for record, key, value in _values(content):
        seen.add((record, key))
        rule = listed.get((record, key))
        if rule is None:
            problems.append(f"{message}: {record}: {key} is not on the list")
        elif type(value) is not rule.kind:
            problems.append(f"{message}: {record}: {key} is of another type")
        elif not rule.holds(value, limits):
            problems.append(f"{message}: {record}: {key} is not: {rule.bound}")
    problems += [f"{message}: a metric is out of its range" for row in _rows(content) if not _in_range(row)]
    top = {place for place in listed if ": " not in place[1]}
    problems += [f"{message}: {record}: {key} is missing" for record, key in sorted(top - seen)]
    return problems


def _checked(message: str, content: RecordDict, limits: Limits) -> RecordDict:
    problems = check(message, content, limits)
    if problems:
        raise RequestRefused("failed", f"the reply is not sent: {'; '.join(problems)}")
    return content


def _values(content: RecordDict) -> Iterator[tuple[str, str, Any]]:
    """Return every value of a reply with its place, those inside the table of results included."""
    for record, part in content.items():
        for key, value in part.items():
            yield record, key, _flat(value) if isinstance(value, Array) else value
            if key == "evaluation" and isinstance(value, str):
                table = json.loads(value)
                for name, rows in table.items():
                    for row in rows:
                        for column, inner in row.items():
                            yield record, f"evaluation: {name}: {column}", inner


def _rows(content: RecordDict) -> Iterator[dict[str, Any]]:
    """Return every line of a table of results."""
    for part in content.values():
        table = part.get("evaluation")
        if isinstance(table, str):
            yield from (row for rows in json.loads(table).values() for row in rows)


def _in_range(row: dict[str, Any]) -> bool:
    """Tell whether a line's numbers are in the range of its own metric; a difference, in the width of it."""
    if row["metric"] not in METRICS:
        return False
    low, high = METRICS[row["metric"]].low, METRICS[row["metric"]].high
    if "difference" in row:
        low, high = low - high, high - low
    numbers = [row.get(key) for key in ("value", "difference", "ci_low", "ci_high")]
    return all(low <= number <= high for number in numbers if isinstance(number, float))


def _flat(array: Array) -> FlatWeights | Array:
    """Return the values of a flat float32 array; an array of another kind as it is, which no rule allows."""
    is_flat = array.dtype == "float32" and array.shape == (len(array.data) // 4,)
    return np.frombuffer(array.data, "<f4") if is_flat else array


def _finite(row: dict[str, Any]) -> bool:
    return all(math.isfinite(value) for value in row.values() if isinstance(value, float))


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its measured numbers rounded; the share of labels is the study's own."""
    return {
        key: round(value, DECIMALS) if isinstance(value, float) and key != "label_fraction" else value
        for key, value in row.items()
    }
