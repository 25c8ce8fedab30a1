"""The list of all that leaves a site: nothing else is sent, and each value keeps its rule."""

import ast
import math

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, MetricRecord

from health import HEALTHY
from hilum.client.disclosure import outgoing
from hilum.client.disclosure.leaves import LEAVES, Limits, as_markdown
from hilum.common import records
from hilum.common.config.tasks import METRICS
from hilum.common.errors import RequestRefused
from hilum.common.results_table import Comparison, Evaluation, Row
from places import ROOT

LIMITS = Limits(threshold=11, rounds=5, size=4, fractions=(0.1, 1.0))
SHA = "0123456789abcdef" * 4


def trained(**changes):
    facts = {
        "round_number": 1,
        "base_sha256": SHA,
        "examples": 22,
        "loss": 0.123456789,
        "seconds": 12.6,
        "health": HEALTHY,
        "update": np.array([0.5, -0.25, 0, 8], np.float32),
        "limits": LIMITS,
        **changes,
    }
    return outgoing.training_reply("site-0", **facts)


def row(**changes):
    facts = {
        "site": "site-0",
        "task": "classification",
        "protocol": "linear",
        "label_fraction": 1.0,
        "arm": "federated",
        "metric": "auroc",
        "value": 0.87654321,
        "ci_low": 0.7123456,
        "ci_high": 0.9999999,
        "n_patients": 37,
        **changes,
    }
    return Row(**facts)


def comparison(**changes):
    facts = {
        "site": "site-0",
        "task": "classification",
        "protocol": "linear",
        "label_fraction": 1.0,
        "arm": "raw",
        "metric": "auroc",
        "difference": -0.0123456,
        "ci_low": -0.1,
        "ci_high": 0.2,
        **changes,
    }
    return Comparison(**facts)


def test_numbers_are_rounded_before_they_leave():
    reply = records.unpack_training_reply(trained())
    assert (reply.loss, reply.seconds) == (0.1235, 13.0)
    assert records.unpack_training_reply(trained(loss=123456.7)).loss == 123500.0
    health = {**HEALTHY, "residual_norm": 12.345678}
    assert records.unpack_training_reply(trained(health=health)).health == {**HEALTHY, "residual_norm": 12.35}
    table = outgoing.evaluation_table(Evaluation((row(),), (comparison(),)), LIMITS)
    [only] = table["rows"]
    assert (only["value"], only["ci_low"], only["ci_high"]) == (0.877, 0.712, 1.0)
    assert only["n_patients"] == 33
    assert table["comparisons"][0]["difference"] == -0.012
    assert table["rows"][0]["label_fraction"] == 1.0


def test_a_share_of_labels_is_the_studys_and_not_rounded():
    limits = Limits(threshold=1, fractions=(0.123456,))
    table = outgoing.evaluation_table(Evaluation((row(label_fraction=0.123456),), ()), limits)
    assert outgoing.evaluation_reply("site-0", table, limits)


def test_rows_without_a_finite_number_are_left_out():
    nan = row(metric="balanced_accuracy", value=math.nan)
    table = outgoing.evaluation_table(Evaluation((row(), nan), (comparison(ci_low=math.nan),)), LIMITS)
    assert len(table["rows"]) == 1
    assert table["comparisons"] == []
    with pytest.raises(RequestRefused) as refused:
        outgoing.evaluation_table(Evaluation((nan,), ()), LIMITS)
    assert refused.value.code == "data"


def test_metrics_of_too_few_patients_are_withheld():
    assert outgoing.evaluation_table(Evaluation((row(n_patients=11),), ()), LIMITS)
    with pytest.raises(RequestRefused) as refused:
        outgoing.evaluation_table(Evaluation((row(n_patients=10),), ()), LIMITS)
    assert refused.value.code == "too_few_patients"


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": math.nan},
        {"loss": math.inf},
        {"update": np.array([np.nan] * 4)},
        {"health": {**HEALTHY, "gradient_norm": math.inf}},
    ],
)
def test_a_training_that_diverged_is_refused_by_the_site_itself(changes):
    with pytest.raises(RequestRefused, match="diverged"):
        trained(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"examples": 23},
        {"examples": 0},
        {"examples": -11},
        {"round_number": 0},
        {"round_number": 6},
        {"base_sha256": "/data/archive"},
        {"base_sha256": SHA.upper()},
        {"seconds": -5.0},
        {"update": np.zeros(3, np.float32)},
        {"update": np.full(4, 8.1, np.float32)},
    ],
)
def test_an_update_that_breaks_a_rule_is_not_sent(changes):
    with pytest.raises(RequestRefused, match="the reply is not sent"):
        trained(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "/data/archive"},
        {"task": "survival"},
        {"protocol": "oracle"},
        {"arm": "patient 7"},
        {"metric": "accuracy of patient 7"},
        {"label_fraction": 0.37},
        {"n_patients": 34},
        {"value": 0.87654321},
        {"value": 1.1},
        {"value": 1},
        {"value": "0.877"},
        {"patient": "x"},
    ],
)
def test_results_that_break_a_rule_are_not_sent(changes):
    table = outgoing.evaluation_table(Evaluation((row(),), (comparison(),)), LIMITS)
    assert outgoing.evaluation_reply("site-0", table, LIMITS)
    table["rows"][0].update(changes)
    with pytest.raises(RequestRefused, match="the reply is not sent"):
        outgoing.evaluation_reply("site-0", table, LIMITS)


def test_another_part_of_a_table_is_not_sent():
    table = outgoing.evaluation_table(Evaluation((row(),), ()), LIMITS)
    with pytest.raises(RequestRefused, match="the reply is not sent"):
        outgoing.evaluation_reply("site-0", {**table, "predictions": []}, LIMITS)


def test_a_greeting_and_a_refusal_hold_no_other_value():
    assert records.unpack_hello(outgoing.hello("site-0", 22, LIMITS)).examples == 22
    for site, examples in (("site 0", 22), ("site-0", 21), ("site-0", 0)):
        with pytest.raises(RequestRefused, match="the reply is not sent"):
            outgoing.hello(site, examples, LIMITS)
    assert records.unpack_refusal(outgoing.refusal("site-0", "data")).code == "data"
    with pytest.raises((AssertionError, RequestRefused)):
        outgoing.refusal("site-0", "no image of patient 7")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update({"more": ConfigRecord({"x": 1})}),
        lambda c: c["facts"].update(path="/data"),
        lambda c: c["numbers"].update(patients=[1, 2, 3]),
        lambda c: c["numbers"].update(examples=22.0),
        lambda c: c["numbers"].update(loss=[0.1, 0.2]),
        lambda c: c["facts"].update(round=True),
        lambda c: c["arrays"].update(image=Array("float32", (4,), "hilum.flat", bytes(16))),
        lambda c: c["arrays"].update(update=Array("float64", (4,), "hilum.flat", bytes(32))),
        lambda c: c["facts"].pop("round"),
        lambda c: c.update({"numbers": MetricRecord({})}),
    ],
)
def test_what_is_not_on_the_list_is_found_in_any_place_of_a_message(change):
    content = trained()
    assert outgoing.check(records.TRAIN, content, LIMITS) == []
    change(content)
    assert outgoing.check(records.TRAIN, content, LIMITS)


def test_the_list_has_one_line_for_each_value_and_each_metric():
    places = [(one.message, one.record, one.key) for one in LEAVES]
    assert len(places) == len(set(places))
    bound = next(one.bound for one in LEAVES if one.key == "evaluation: rows: metric")
    assert bound.split(", ") == list(METRICS)


def test_the_page_has_the_list_as_it_is():
    page = (ROOT / "docs" / "reference" / "what-leaves.md").read_text()
    assert as_markdown() in page, "run `python tests/support/reference_tables.py`"


def places_of(folder, wanted):
    """Files below a folder in which a name is used that `wanted` takes, as an attribute, a name, or an import."""
    found = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Attribute):
                names = [node.attr]
            elif isinstance(node, ast.Name):
                names = [node.id]
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            if any(map(wanted, names)):
                found.add(path.relative_to(folder).as_posix())
    return found


def test_no_other_file_of_the_client_makes_a_reply():
    client = ROOT / "client" / "hilum" / "client"
    replies = {name for name in dir(records) if name.startswith("pack_") and "request" not in name}
    assert len(replies) == 5
    assert places_of(client, replies.__contains__) == {"disclosure/outgoing.py"}


def test_no_other_file_of_the_client_fills_a_record():
    client = ROOT / "client" / "hilum" / "client"
    makers = {"ConfigRecord", "MetricRecord", "ArrayRecord"}
    assert places_of(client, makers.__contains__) <= {"disclosure/outgoing.py"}


def test_a_reply_is_weighed_as_it_is_sent():
    content = trained()
    assert outgoing.size_bytes(content) == 16 + sum(
        len(str(value)) for part in ("facts", "numbers") for value in content[part].values()
    )
