"""What the server adds to what was signed is checked as well."""

import time

import numpy as np
import pytest

from asked_site import first_weights, refused, training
from hilum.client.state.workspace import Workspace
from hilum.common import records
from signed import sign


@pytest.mark.parametrize("number", [-1, 0, 3, 2**31, 2**70, -(2**70)])
def test_a_round_outside_of_the_study_is_refused(site, study, number):
    assert refused(site, training(study, number), records.TRAIN) == "round"
    assert not Workspace(site.state.folder).run("run").exists()


@pytest.mark.parametrize("number", [True, 1.0, "1", b"1", [1]])
def test_a_round_that_is_no_number_is_refused(site, study, number):
    assert refused(site, training(study, number), records.TRAIN) == "wrong_format"


@pytest.mark.parametrize("kind", [records.HELLO, records.EVALUATE])
def test_greetings_and_evaluations_belong_to_no_round(site, study, kind):
    assert refused(site, records.pack_request(sign(study), round_number=1), kind) == "round"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w[:-1],
        lambda w: np.concatenate([w, w]),
        lambda w: w[:0],
        lambda w: np.where(np.arange(w.size) == 3, np.nan, w).astype(np.float32),
        lambda w: np.where(np.arange(w.size) == 3, np.inf, w).astype(np.float32),
    ],
    ids=["short", "twice", "none", "nan", "infinity"],
)
def test_weights_of_another_size_or_not_finite_are_refused(site, study, spoil):
    weights = spoil(first_weights(study))
    assert refused(site, training(study, base=weights), records.TRAIN) == "wrong_format"
    evaluation = records.pack_request(sign(study), weights={"federated": weights})
    assert refused(site, evaluation, records.EVALUATE) == "wrong_format"


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (records.HELLO, ["weights"]),
        (records.TRAIN, []),
        (records.TRAIN, ["federated"]),
        (records.TRAIN, ["weights", "federated"]),
        (records.EVALUATE, ["weights"]),
        (records.EVALUATE, ["local"]),
        (records.EVALUATE, ["raw"]),
        (records.EVALUATE, ["centralised"]),
        (records.EVALUATE, ["../federated"]),
    ],
)
def test_a_server_sends_no_other_weights_than_its_part_of_the_study(site, study, kind, names):
    """`centralised` is an arm of other studies, not of this one."""
    weights = dict.fromkeys(names, first_weights(study))
    content = records.pack_request(sign(study), round_number=int(kind == records.TRAIN), weights=weights)
    assert refused(site, content, kind) == "wrong_format"


def test_a_million_arms_are_refused_at_once(site, study):
    content = records.pack_request(sign(study), weights={"federated": first_weights(study)})
    one = content["arrays"]["federated"]
    many = records.ArrayRecord({f"arm{number}": one for number in range(10**6)})
    content["arrays"] = many
    started = time.monotonic()
    assert refused(site, content, records.EVALUATE) == "wrong_format"
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("part", ["facts", "arrays", "document", "signature", "round"])
def test_a_request_with_a_part_missing_or_added_is_refused(site, study, part):
    content = records.pack_request(sign(study))
    if part in content:
        del content[part]
    else:
        del content["facts"][part]
    assert refused(site, content) == "wrong_format"
    content = records.pack_request(sign(study))
    content["facts"]["more"] = "x"
    assert refused(site, content) == "wrong_format"
