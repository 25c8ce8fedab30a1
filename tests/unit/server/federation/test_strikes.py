"""What is a site's own doing costs it its place in the study, after three times."""

import json
import logging

import pytest

from federated_sites import EXAMPLES, changed, honest
from hilum.common import records
from hilum.common.errors import FederationError


def test_three_strikes_cost_a_site_the_study_and_are_told_once(make_study, federate, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hilum")
    asked = []

    def not_a_number(name, request):
        asked.append(request.round_number)
        return changed(loss=float("nan"))(name, request)

    _, seen = federate(make_study(federation={"rounds": 5}), {"site-1": not_a_number})
    assert asked == [1, 2, 3]
    codes = [record.failures["site-1"].split(":")[0] for record in seen]
    assert codes == ["not_finite", "not_finite", "not_finite", "suspended", "suspended"]
    assert [record.suspended for record in seen] == [[], [], ["site-1"], [], []]
    told = [line for line in caplog.messages if "is suspended" in line]
    assert told == ["site-1 is suspended for the rest of the study: it was refused 3 times"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert [line["suspended"] for line in lines] == [[], [], ["site-1"], [], []]
    assert [line["contributed"] for line in lines] == [2] * 5


def test_strikes_survive_a_resume(make_study, federate):
    study = make_study(federation={"rounds": 4})
    state = {"up": False}

    def fails_in_round_3(name, request):
        if request.round_number == 3 and not state["up"]:
            return records.Refusal(name, "failed")
        return honest(name, request)

    train = {"site-1": changed(loss=float("nan")), "site-0": fails_in_round_3}
    with pytest.raises(FederationError, match="round 3 has 1 of the 2 updates"):
        federate(study, train)
    state["up"] = True
    _, seen = federate(study, train, resume=True)
    codes = [record.failures["site-1"].split(":")[0] for record in seen]
    assert codes == ["not_finite", "not_finite", "not_finite", "suspended"]


def test_suspensions_below_the_quorum_end_the_run_with_each_reason(make_study, federate):
    """Each round keeps its quorum of two of four; after round 6 three sites have lost their place."""
    names = ("site-0", "site-1", "site-2", "site-3")
    bad_rounds = {"site-0": (1, 2, 3), "site-1": (1, 2, 4), "site-2": (4, 5, 6), "site-3": ()}

    def train(name, request):
        reply = honest(name, request)
        return (
            changed(loss=float("nan"))(name, request) if request.round_number in bad_rounds[name] else reply
        )

    EXAMPLES["site-3"] = 10
    study = make_study(federation={"rounds": 9, "sites": 4, "quorum": 1})
    _, seen = federate(study, dict.fromkeys(names, train), names=names, sites=names)
    assert [record.suspended for record in seen] == [
        [],
        [],
        ["site-0"],
        ["site-1"],
        [],
        ["site-2"],
        [],
        [],
        [],
    ]
    study = make_study(federation={"rounds": 9, "sites": 4, "quorum": 2})
    bad_rounds["site-1"], bad_rounds["site-2"] = (4, 5, 6), (1, 2, 7)
    with pytest.raises(FederationError, match="round 7 has 1 of the 2 updates") as ended:
        federate(study, dict.fromkeys(names, train), names=names, sites=names, folder="two")
    del EXAMPLES["site-3"]
    assert "site-0: suspended: it was refused 3 times in this study" in str(ended.value)
