"""Tables of results from sites that lie: what is not known, finite, in range, asked for and the sender's is refused."""

import json
from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.client.tasks import class_metrics
from hilum.common import records
from hilum.common.config.tasks import MAX_NUMBER, TASKS, ClassificationTask
from hilum.common.errors import UpdateRefused
from hilum.common.results_table import (
    _MAX_ROWS,
    MAX_TABLE_BYTES,
    Comparison,
    Evaluation,
    Row,
    arms_left_out,
    check_table,
    combinations,
    read_table,
)

SENT = {"federated"}
ROWS = tuple(
    Row("site-0", "classification", "linear", 1.0, arm, metric, value, value - 0.1, value + 0.1, 40)
    for arm, value in (("federated", 0.8), ("local", 0.7), ("random", 0.5), ("raw", 0.6))
    for metric in ClassificationTask.metrics
)
COMPARED = (
    Comparison("site-0", "classification", "linear", 1.0, "raw", "auroc", 0.2, 0.1, 0.3),
    Comparison("site-0", "classification", "linear", 1.0, "local", "auroc", 0.1, -0.1, 0.3),
)
TABLE = Evaluation(ROWS, COMPARED)


def sent_as(value, site="site-0"):
    return RecordDict({"facts": ConfigRecord({"site": site, "evaluation": value})})


def test_a_sites_own_table_comes_through_as_it_is(make_study):
    content = records.pack_evaluation_reply(records.EvaluateReply("site-0", TABLE.to_json()))
    reply = records.unpack_evaluation_reply(content)
    assert Evaluation.from_json(reply.evaluation) == TABLE
    check_table(TABLE, make_study(), site="site-0", sent=SENT)
    check_table(Evaluation((), ()), make_study(), site="site-0", sent=SENT)


def test_the_metrics_that_sites_measure_are_those_that_the_server_knows():
    assert set(class_metrics.MEASURES) == set(ClassificationTask.metrics)


def test_of_a_primary_metric_more_is_better_and_its_range_is_known():
    for task in TASKS.values():
        metric = task.metrics[task.primary()]
        assert metric.better == "more"
        assert metric.high - metric.low <= 2


def line(**changes):
    return {**TABLE.to_json()["rows"][0], **changes}


def without(key):
    return {name: value for name, value in line().items() if name != key}


@pytest.mark.parametrize(
    "table",
    [
        "[" * 200_000,
        '{"rows": ' + "[" * 200_000 + "]" * 200_000 + ', "comparisons": []}',
        '{"rows": [], "comparisons": []',
        '{"rows": [], "comparisons": [], "more": []}',
        '{"rows": []}',
        "[]",
        "null",
        '"rows"',
        json.dumps({"rows": {}, "comparisons": []}),
        json.dumps({"rows": {"0": line()}, "comparisons": []}),
        json.dumps({"rows": [list(line().values())], "comparisons": []}),
        json.dumps({"rows": [line()] * (_MAX_ROWS + 1), "comparisons": []}),
        json.dumps({"rows": [1] * 300_000, "comparisons": []}),
        json.dumps({"rows": [{f"{n:06d}": 1 for n in range(80_000)}], "comparisons": []}),
        " " * MAX_TABLE_BYTES + '{"rows": [], "comparisons": []}',
        "\ud800",
        *(
            json.dumps({"rows": [row], "comparisons": []})
            for row in (
                line(value=float("nan")),
                line(value=float("inf")),
                line(value=7e9),
                line(value=-1.5e9),
                line(value="0.8"),
                line(value=True),
                line(value=None),
                line(value=[0.8]),
                line(value=10**400),
                line(n_patients=0),
                line(n_patients=40.5),
                line(n_patients=10**9),
                line(note="anything else"),
                line(note=None),
                line(site=["site-0"]),
                line(site={"a": 1}),
                line(arm="x" * 65),
                line(__class__="Row"),
                without("ci_low"),
            )
        ),
        json.dumps({"rows": [line()], "comparisons": []}).replace("0.8,", "1e999,", 1),
    ],
    ids=range(36),
)
def test_what_is_not_a_table_is_refused(table):
    with pytest.raises(UpdateRefused, match=r"^wrong_format: the results are ") as refused:
        read_table(table)
    assert len(str(refused.value)) < 300
    with pytest.raises(UpdateRefused, match=r"^wrong_format: ") as refused:
        records.unpack_evaluation_reply(sent_as(table.encode(errors="replace").decode()))


@pytest.mark.parametrize("value", [b"{}", 7, 0.5, ["{}"], [1, 2]])
def test_results_that_are_no_text_are_refused(value):
    with pytest.raises(UpdateRefused, match=r"^wrong_format: expected text"):
        records.unpack_evaluation_reply(sent_as(value))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"site": "site-1"}, "wrong_site"),
        ({"task": "segmentation"}, "not_asked"),
        ({"protocol": "knn"}, "not_asked"),
        ({"label_fraction": 0.1}, "not_asked"),
        ({"arm": "centralised"}, "not_asked"),
        ({"arm": "scratch"}, "not_asked"),
        ({"arm": "<script>"}, "not_asked"),
        ({"metric": "accuracy"}, "not_asked"),
        ({"arm": "local"}, "twice"),
        ({"value": -0.1, "ci_low": -0.2, "ci_high": 0.1}, "out_of_range"),
        ({"ci_low": -0.1}, "out_of_range"),
        ({"ci_low": 0.9, "ci_high": 0.7}, "out_of_range"),
        ({"value": 0.2}, "out_of_range"),
        ({"value": 1.0, "ci_low": 0.7, "ci_high": 0.89}, "out_of_range"),
        ({"n_patients": 10}, "too_few_patients"),
    ],
)
def test_rows_that_the_study_did_not_ask_for_or_that_can_not_be_are_refused(make_study, row, reason):
    table = Evaluation((replace(ROWS[0], **row), *ROWS[1:]), ())
    with pytest.raises(UpdateRefused, match=f"^{reason}: "):
        check_table(table, make_study(privacy={"min_patients": 11}), site="site-0", sent=SENT)


@pytest.mark.parametrize(
    ("comparison", "reason"),
    [
        ({"site": "site-1"}, "wrong_site"),
        ({"arm": "federated", "difference": 0.0}, "not_asked"),
        ({"arm": "centralised"}, "not_asked"),
        ({"arm": "local"}, "twice"),
        ({"ci_low": 0.3, "ci_high": 0.1}, "out_of_range"),
        ({"ci_low": 0.31, "ci_high": 0.5}, "out_of_range"),
        ({"difference": 0.25}, "contradiction"),
    ],
)
def test_comparisons_that_are_not_of_the_tables_own_rows_are_refused(make_study, comparison, reason):
    table = Evaluation(ROWS, (replace(COMPARED[0], **comparison), COMPARED[1]))
    with pytest.raises(UpdateRefused, match=f"^{reason}: "):
        check_table(table, make_study(), site="site-0", sent=SENT)


def of_regression(**changes):
    """A row in the label's unit."""
    row = Row("site-0", "regression", "linear", 1.0, "federated", "mae", 2500.0, 2100.0, 2900.0, 40)
    return replace(row, **changes)


def test_each_task_of_a_study_has_lines_of_its_own(make_study):
    both = make_study(tasks={"regression": {"label": "age"}})
    theirs = of_regression(arm="raw", value=3000.0, ci_high=3300.0)
    less = Comparison("site-0", "regression", "linear", 1.0, "raw", "mae", -500.0, -900.0, -100.0)
    table = Evaluation((*ROWS, of_regression(), theirs), (*COMPARED, less))
    check_table(table, both, site="site-0", sent=SENT)
    # A percentile interval may lie beside its value by a tenth of it, whatever the unit.
    beside = Evaluation((of_regression(value=3100.0),), ())
    check_table(beside, both, site="site-0", sent=SENT)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"task": "classification"}, "not_asked"),
        ({"metric": "auroc", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6}, "not_asked"),
        ({"task": "retrieval"}, "not_asked"),
        ({"value": -1.0, "ci_low": -2.0}, "out_of_range"),
        ({"metric": "r2", "value": -1.5, "ci_low": -2.0, "ci_high": 0.0}, "out_of_range"),
        ({"value": 4000.0}, "out_of_range"),
    ],
)
def test_lines_of_another_task_than_was_asked_for_are_refused(make_study, row, reason):
    both = make_study(tasks={"regression": {"label": "age"}})
    with pytest.raises(UpdateRefused, match=f"^{reason}: "):
        check_table(Evaluation((*ROWS, of_regression(**row)), ()), both, site="site-0", sent=SENT)
    with pytest.raises(UpdateRefused, match=r"^not_asked: "):
        check_table(Evaluation((*ROWS, of_regression()), ()), make_study(), site="site-0", sent=SENT)


def test_a_comparison_needs_both_of_its_rows(make_study):
    with pytest.raises(UpdateRefused, match=r"^not_asked: "):
        check_table(Evaluation(ROWS[2:], COMPARED), make_study(), site="site-0", sent=SENT)


def test_the_arms_that_have_no_weights_are_named(make_study):
    evaluation = make_study(evaluation={"arms": ["federated", "local", "scratch", "raw"]}).evaluation
    assert arms_left_out(evaluation, {"federated"}) == ["local"]
    assert arms_left_out(evaluation, {"federated", "local"}) == []


def test_what_a_study_asks_for_depends_on_what_was_sent(make_study):
    study = make_study(
        evaluation={"arms": ["federated", "centralised", "scratch"], "protocols": ["finetune"]}
    )
    assert list(combinations(study.evaluation, {"federated"})) == [
        ("finetune", 1.0, "federated"),
        ("finetune", 1.0, "scratch"),
    ]
    row = replace(ROWS[0], protocol="finetune", arm="centralised")
    check_table(Evaluation((row,), ()), study, site="site-0", sent={"federated", "centralised"})
    with pytest.raises(UpdateRefused, match=r"^not_asked: "):
        check_table(Evaluation((row,), ()), study, site="site-0", sent={"federated"})
    untasked = study.model_copy(update={"tasks": study.tasks.model_copy(update={"classification": None})})
    with pytest.raises(UpdateRefused, match=r"^not_asked: "):
        check_table(Evaluation((row,), ()), untasked, site="site-0", sent={"federated", "centralised"})


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("site-0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=200) | _VALUES.map(json.dumps))
@settings(max_examples=200, deadline=None)
def test_no_text_makes_reading_fail_otherwise_than_by_a_refusal(text):
    try:
        read_table(text)
    except UpdateRefused:
        return


@given(st.dictionaries(st.sampled_from(sorted(line())), _VALUES, max_size=4))
@settings(max_examples=200, deadline=None)
def test_no_row_makes_reading_fail_otherwise_than_by_a_refusal(changes):
    try:
        [row] = read_table(json.dumps({"rows": [line(**changes)], "comparisons": []})).rows
    except UpdateRefused:
        return
    assert abs(row.value) <= MAX_NUMBER  # the range of its own metric is held by `check_table`
    assert row.ci_low == row.ci_low
