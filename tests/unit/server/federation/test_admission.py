"""Which updates count: each is held against the round, the study and the norms before it."""

import itertools

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Error, RecordDict

from federated_sites import changed, honest
from health import HEALTHY
from hilum.common import records
from hilum.common.errors import FederationError, UpdateRefused
from hilum.common.refusals import REFUSALS
from hilum.common.weights import apply_update
from hilum.server.federation.admission import WINDOW_ROUNDS, Terms, admit, norm_bound, running_bound
from hilum.server.federation.aggregators.base import UpdateFacts
from hilum.server.federation.exchange import Answer
from hilum.server.federation.roster import Site
from hilum.server.federation.round_updates import HeldUpdates, RoundTally, admit_round
from hilum.server.federation.store import RoundRecord, RunStore


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"update": np.full(7, 1, np.float32)}, "wrong_size"),
        ({"round_number": 9}, "stale"),
        ({"base_sha256": "0" * 64}, "stale"),
        ({"site": "site-0"}, "wrong_site"),
        ({"examples": 0}, "no_examples"),
        ({"examples": -5}, "no_examples"),
        ({"examples": 31}, "wrong_examples"),
        ({"examples": 2**62}, "wrong_examples"),
        ({"loss": float("nan")}, "not_finite"),
        ({"loss": 1e300}, "out_of_range"),
        ({"seconds": -1.0}, "out_of_range"),
    ],
)
def test_an_update_that_is_not_admitted_is_left_out_with_its_reason(make_study, federate, facts, reason):
    study = make_study(federation={"rounds": 1})
    _, [record] = federate(study, {"site-1": changed(**facts)})
    assert set(record.sites) == {"site-0", "site-2"}
    assert record.failures["site-1"].startswith(f"{reason}: ")
    assert (record.contributed, record.expected) == (2, 3)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda u: u * np.float32("nan"), "not_finite"),
        (lambda u: u * 1e6, "too_large: one weight moves by"),
        (lambda u: u * 100, "too_large: the norm is"),
        (lambda u: u + np.float32("inf"), "not_finite"),
    ],
)
def test_a_poisoned_update_changes_nothing(make_study, federate, spoil, reason, small_model):
    study = make_study(federation={"rounds": 1})

    def poisoned(name, request):
        reply = honest(name, request)
        return records.TrainReply(
            name, 1, reply.base_sha256, 30, 1.0, 0.1, HEALTHY, spoil(reply.update).astype(np.float32)
        )

    with np.errstate(all="ignore"):
        done, [record] = federate(study, {"site-1": poisoned})
    assert record.failures["site-1"].startswith(reason)
    base = small_model.base
    assert (
        done.weights.tobytes() == apply_update(base, np.full(base.shape, (100 + 400) / 30 / 1024)).tobytes()
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.config_records.pop("facts"),
        lambda c: c.array_records["arrays"].pop("update"),
        lambda c: c.metric_records["numbers"].update(examples=[1, 2]),
        lambda c: c.config_records["facts"].update(round="one"),
        lambda c: c.config_records["facts"].update(site=b"site-1"),
        lambda c: c.array_records["arrays"].update(
            update=Array("float32", (3,), "numpy.ndarray", b"pickled, perhaps")
        ),
    ],
)
def test_a_malformed_reply_costs_that_site_alone(make_study, federate, monkeypatch, spoil):
    pack = records.pack_training_reply

    def packed(reply):
        content = pack(reply)
        if reply.site == "site-1":
            spoil(content)
        return content

    monkeypatch.setattr(records, "pack_training_reply", packed)
    _, [record] = federate(make_study(federation={"rounds": 1}))
    assert record.failures["site-1"].startswith("wrong_format: ")
    assert set(record.sites) == {"site-0", "site-2"}


@pytest.mark.parametrize(
    ("content", "failure"),
    [
        (records.Refusal("site-1", "policy_hours"), f"policy_hours: {REFUSALS['policy_hours']}"),
        (
            {"site": "site-1", "refused": "data", "detail": "\x1b[2J" * 1000},
            f"data: {REFUSALS['data']}",
        ),
        (
            {"site": "site-1", "refused": "\x1b[31m<script>" + "x" * 5_000_000},
            "wrong_format: a refusal with a code that is not on the list",
        ),
        ({"site": "\x1b[31m", "refused": "data"}, "wrong_format: the site's name is not a name"),
        ({"site": "site-1", "refused": ["data"]}, "wrong_format: expected text"),
    ],
)
def test_of_a_refusal_nothing_but_a_listed_code_is_told(make_study, federate, caplog, content, failure):
    if isinstance(content, dict):
        content = RecordDict({"facts": ConfigRecord(content)})
    _, [record] = federate(make_study(federation={"rounds": 1}), {"site-1": lambda name, request: content})
    assert record.failures == {"site-1": failure}
    assert caplog.messages[-1] == f"round 1: no update of site-1: {failure}"


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (101, "too_large: the reply is larger than this kind of message allows"),
        (102, "wrong_format: the reply is not a well-formed message"),
        (2, "failed: the site's process failed (Flower code 2)"),
    ],
)
def test_what_the_gate_refused_is_a_refusal_with_our_words(make_study, federate, code, failure):
    error = Error(code=code, reason="\x1b[2J")
    _, [record] = federate(make_study(federation={"rounds": 1}), {"site-1": lambda n, r: error})
    assert record.failures == {"site-1": failure}


def record_with(number, *norms):
    sites = {f"site-{n}": {"norm": norm} for n, norm in enumerate(norms)}
    return RoundRecord(number, 1.0, 1, 1, len(norms), len(norms), sites, {}, [], 1.0)


def test_the_bound_is_a_multiple_of_the_lower_median_of_the_last_rounds_norms():
    assert norm_bound([1.0, 4.0, 100.0], 10) == 40
    assert norm_bound([1.0, 4.0], 10) == 10
    assert norm_bound([0.0, 0.0, 2.0], 10) == 20, "an update of zeros says nothing of the others' size"
    assert norm_bound([0.0], 10) is None
    assert running_bound([], 10) is None
    rounds = [record_with(1, 99.0, 99.0, 99.0), *[record_with(n, 1.0, 2.0, 3.0) for n in range(2, 7)]]
    assert len(rounds) == WINDOW_ROUNDS + 1
    assert running_bound(rounds, 10) == 20
    assert running_bound(rounds[:1], 10) == 990


def test_an_update_beyond_the_agreed_norm_is_refused():
    reply = records.TrainReply("a", 1, "x", 5, 1.0, 1.0, HEALTHY, np.full(4, 1, np.float32))

    def terms(max_norm=None, bound=None):
        return Terms(1, "x", 4, max_norm, bound, norm_ratio=10.0, example_cap=3)

    admitted = admit(reply, terms(2.0, 2.0), site="a", examples=5)
    assert (admitted.weight, admitted.facts) == (3, UpdateFacts("a", 5, 1.0, 2.0))
    assert admitted.update is reply.update
    with pytest.raises(UpdateRefused, match=r"too_large: the norm is 2, privacy.max_update_norm is 1.9"):
        admit(reply, terms(max_norm=1.9), site="a", examples=5)
    with pytest.raises(UpdateRefused, match=r"too_large: the norm is 2, federation.norm_ratio times .* 1.9"):
        admit(reply, terms(bound=1.9), site="a", examples=5)


@pytest.fixture
def store(make_study, make_order, tmp_path):
    with RunStore.open(tmp_path / "store", make_order(make_study())[1], resume=False) as made:
        yield made


def answers_of(values):
    """What sites answer in round 1 whose updates have one value throughout, with 10 images each."""
    for number, (name, value) in enumerate(values.items()):
        reply = records.TrainReply(name, 1, "x", 10, 1.0, 1.0, HEALTHY, np.full(4, value, np.float32))
        yield Site(name, number, 10), Answer(number, records.pack_training_reply(reply), attempts=2)


def test_in_the_first_round_the_order_of_arrival_changes_nothing(store):
    terms = Terms(1, "x", 4, None, None, norm_ratio=3.0, example_cap=100)
    outcomes = set()
    for order in itertools.permutations({"a": 1.0, "b": 2.0, "c": 7.9}.items()):
        tally = RoundTally(1)
        with HeldUpdates(store) as held:
            admitted = admit_round(answers_of(dict(order)), terms, held, tally)
            first = next(admitted)
            files = sorted((store.folder / ".held").iterdir())
            assert [(path.name, path.stat().st_size) for path in files] == [
                (f"{name}.f32", 16) for name in "abc"
            ]
            outcomes.add(
                str([(one.facts.site, one.update.tolist(), one.weight) for one in (first, *admitted)])
            )
        assert sorted(tally.trained) == ["a", "b"]
        assert (
            "the norm is 15.8, federation.norm_ratio times the median of norms is 12" in tally.failures["c"]
        )
        assert (tally.sent, tally.bytes_up) == (6, 48)
    assert outcomes == {str([("a", [1.0] * 4, 10), ("b", [2.0] * 4, 10)])}
    assert not (store.folder / ".held").exists()


def test_with_a_bound_each_update_goes_on_before_the_next_is_asked_for(store):
    terms = Terms(1, "x", 4, None, norm_bound=5.0, norm_ratio=3.0, example_cap=7)
    tally, asked = RoundTally(1), []

    def answers():
        for site, answer in answers_of({"c": 1.0, "a": 7.9, "b": 2.0}):
            asked.append(site.name)
            yield site, answer

    with HeldUpdates(store) as held:
        admitted = admit_round(answers(), terms, held, tally)
        first = next(admitted)
        assert (first.facts.site, first.weight, asked) == ("c", 7, ["c"])
        assert [one.facts.site for one in admitted] == ["b"]
        assert not list((store.folder / ".held").iterdir())
    assert tally.failures["a"].startswith("too_large: ")
    assert tally.trained["b"] == {
        "examples": 10,
        "loss": 1.0,
        "seconds": 1.0,
        "attempts": 2,
        "norm": 4.0,
        **HEALTHY,
    }


def test_later_rounds_are_held_against_the_norms_before_them(make_study, federate, small_model):
    study = make_study(federation={"rounds": 3, "norm_ratio": 2.0})

    def grows(name, request):
        reply = honest(name, request)
        return records.TrainReply(
            **{**reply.__dict__, "update": reply.update * np.float32(3.0 ** (request.round_number - 1))}
        )

    base = small_model.base
    bound = 2 * 20 / 1024 * base.size**0.5
    _, seen = federate(study, {"site-0": grows})
    assert set(seen[1].sites) == {"site-0", "site-1", "site-2"}, "30 is within twice the median of 20"
    assert seen[2].failures["site-0"].startswith("too_large: the norm is")
    assert f"is {bound:.6g}" in seen[2].failures["site-0"]


def test_a_resumed_run_holds_updates_against_the_same_norms(make_study, federate):
    study = make_study(federation={"rounds": 2, "norm_ratio": 2.0})
    state = {"refuse": True}

    def fails(name, request):
        if request.round_number == 2 and state["refuse"]:
            return records.Refusal(name, "failed")
        return honest(name, request)

    def too_large(name, request):
        reply = honest(name, request)
        return changed(update=reply.update * 2)(name, request) if request.round_number == 2 else reply

    train = {"site-0": fails, "site-2": fails, "site-1": too_large}
    with pytest.raises(FederationError):
        federate(study, train)
    state["refuse"] = False
    _, seen = federate(study, train, resume=True)
    assert seen[1].failures["site-1"].startswith("too_large: ")
