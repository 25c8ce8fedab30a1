"""The server's side against client apps that misbehave, on the in-process grid."""

import gc
import itertools
import json
import logging
import threading
import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from hilum.common import records
from hilum.common.errors import FederationError, UpdateRefused
from hilum.common.progress import NullProgress
from hilum.common.refusals import REFUSALS
from hilum.common.weights import Manifest, apply_update, sha256_of
from hilum.server.federation.admission import WINDOW_ROUNDS, Terms, admit, norm_bound, running_bound
from hilum.server.federation.exchange import Answer, exchange
from hilum.server.federation.roster import Site
from hilum.server.federation.round_updates import HeldUpdates, RoundUpdates
from hilum.server.federation.rounds import Federation
from hilum.server.federation.run_spec import Polling, RunSpec
from hilum.server.federation.store import RoundRecord, RunStore
from hilum.simulations.grid import InProcessGrid

PACE = Polling(poll_s=0.005, gather_s=30.0)
EXAMPLES = {"site-0": 10, "site-1": 30, "site-2": 20}
NAMES = tuple(EXAMPLES)


class LazyPool:
    """Sites work when their answers are taken, so that none waits in the grid."""

    def submit(self, work, *facts):
        return SimpleNamespace(done=lambda: True, result=lambda: work(*facts))

    def shutdown(self, **_how):
        return


class NamedGrid(InProcessGrid):
    """Knows names, as the gate does, and can lose sites."""

    def __init__(self, client, names=NAMES):
        super().__init__(client, nodes=len(names), workers=len(names))
        self.names = dict(zip(sorted(self._contexts), names, strict=True))
        self.limits, self.withdrawn, self.gone = {}, [], set()

    def get_node_ids(self):
        return [node for node, name in self.names.items() if name not in self.gone]

    def reply_limit(self, message_type, size_bytes):
        self.limits[message_type] = size_bytes

    def withdraw(self, message_ids):
        self.withdrawn += message_ids


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    """What travels is two tensors of 1,000 values, so that rounds take milliseconds."""

    def use(size):
        manifest = Manifest((("a", (size // 2,)), ("b", (2, size // 4))))
        base = np.random.default_rng(1).normal(size=size).astype(np.float32)
        monkeypatch.setattr("hilum.server.federation.rounds.build_method", lambda study: None)
        monkeypatch.setattr("hilum.server.federation.rounds.federated_manifest", lambda method: manifest)
        monkeypatch.setattr("hilum.server.federation.rounds.get_federated", lambda method: base.copy())
        return base

    use.base = use(1000)
    return use


def honest(name, request):
    """Moves every weight by the site's number of examples, in thousandths."""
    base = request.base
    named = {"a": base[: base.size // 2], "b": base[base.size // 2 :].reshape(2, -1)}
    return records.TrainReply(
        name, request.round_number, sha256_of(named), EXAMPLES[name], 1.0, 0.1,
        np.full_like(base, EXAMPLES[name] / 1024),
    )  # fmt: skip


def make_client(train=None, names=NAMES, hello=None):
    """A client app whose sites answer as `train` and `hello` say, by name."""
    app = ClientApp()

    def name_of(context):
        return names[context.node_config["partition-id"]]

    def message_of(answer, message, pack):
        if isinstance(answer, Error):
            return Message(answer, reply_to=message)
        if isinstance(answer, records.Refusal):
            answer = records.pack_refusal(answer)
        content = answer if isinstance(answer, RecordDict) else pack(answer)
        return Message(content, reply_to=message)

    @app.query()
    def greet(message, context):
        name = name_of(context)
        answer = (hello or {}).get(name, lambda: records.Hello(name, EXAMPLES[name]))()
        return message_of(answer, message, records.pack_hello)

    @app.train()
    def do_train(message, context):
        name = name_of(context)
        request = records.unpack_request(message.content)
        answer = (train or {}).get(name, honest)(name, request)
        return message_of(answer, message, records.pack_training_reply)

    return app


@pytest.fixture
def federate(make_order, tmp_path):
    """Run a study's rounds; the grid is the in-process one, or what `grid` gives."""

    def run(
        study, train=None, *, folder="run", resume=False, hello=None, names=NAMES, grid=None, sites=NAMES,
        stop=None, pace=PACE,
    ):  # fmt: skip
        signed, order = make_order(study, sites=sites)
        seen = []
        made = grid or InProcessGrid(make_client(train, names, hello), nodes=len(names), workers=len(names))
        with RunStore.open(tmp_path / folder, order, resume=resume) as store, made:
            work = RunSpec(signed, order, store, pace, stop=stop or threading.Event())
            federation = Federation(made, work)
            run.federation = federation
            federation.gather()
            federation.run_rounds(NullProgress(), seen.append)
        return federation.done, seen

    return run


def changed(**facts):
    def answer(name, request):
        reply = honest(name, request)
        return records.TrainReply(**{**{f: getattr(reply, f) for f in reply.__dataclass_fields__}, **facts})

    return answer


def test_one_round_is_the_weighted_mean(make_study, federate, small_model):
    study = make_study(federation={"rounds": 1})
    done, [record] = federate(study)
    base = small_model.base
    mean = (10 * 10 + 30 * 30 + 20 * 20) / 60 / 1024
    assert done.weights.tobytes() == apply_update(base, np.full(base.shape, mean)).tobytes()
    assert {name: facts["examples"] for name, facts in record.sites.items()} == EXAMPLES
    assert record.bytes_up == record.bytes_down == 3 * base.nbytes
    assert (record.contributed, record.expected, record.failures, record.suspended) == (3, 3, {}, [])
    assert record.sites["site-1"]["norm"] == pytest.approx(30 / 1024 * base.size**0.5)


def test_a_site_weighs_at_most_the_cap(make_study, federate, small_model):
    study = make_study(federation={"rounds": 1, "example_cap": 10})
    done, _ = federate(study)
    base = small_model.base
    assert done.weights.tobytes() == apply_update(base, np.full(base.shape, 20 / 1024)).tobytes()


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
            name, 1, reply.base_sha256, 30, 1.0, 0.1, spoil(reply.update).astype(np.float32)
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
    reply = records.TrainReply("a", 1, "x", 5, 1.0, 1.0, np.full(4, 1, np.float32))

    def terms(max_norm=None, bound=None):
        return Terms(1, "x", 4, max_norm, bound, 3)

    admitted = admit(reply, terms(2.0, 2.0), site="a", examples=5)
    assert (admitted.weight, admitted.norm) == (3, 2.0)
    with pytest.raises(UpdateRefused, match=r"too_large: the norm is 2, privacy.max_update_norm is 1.9"):
        admit(reply, terms(max_norm=1.9), site="a", examples=5)
    with pytest.raises(UpdateRefused, match=r"too_large: the norm is 2, federation.norm_ratio times .* 1.9"):
        admit(reply, terms(bound=1.9), site="a", examples=5)


@pytest.fixture
def store(make_study, make_order, tmp_path):
    with RunStore.open(tmp_path / "store", make_order(make_study())[1], resume=False) as made:
        yield made


def test_in_the_first_round_the_order_of_arrival_changes_nothing(store):
    values = {"a": 1.0, "b": 2.0, "c": 7.9}
    outcomes = set()
    for order in itertools.permutations(values):
        with HeldUpdates(store) as held:
            updates = RoundUpdates(Terms(1, "x", 4, None, None, 100), held, 300, ratio=3.0)
            for number, name in enumerate(order):
                update = np.full(4, values[name], np.float32)
                reply = records.TrainReply(name, 1, "x", 10, 1.0, 1.0, update)
                answer = Answer(number, records.pack_training_reply(reply))
                updates.take(Site(name, number, 10), answer)
                assert (held._folder / f"{name}.f32").stat().st_size == 16
            updates.settle()
            outcomes.add((updates.mean().tobytes(), str(updates.failures), tuple(sorted(updates.trained))))
    [(mean, failures, trained)] = outcomes
    assert trained == ("a", "b")
    assert "the norm is 15.8, federation.norm_ratio times the median of norms is 12" in failures
    assert mean == np.full(4, 1.5).tobytes()
    assert not (store.folder / ".held").exists()


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


def test_too_few_updates_end_the_run_with_a_line_that_says_why_and_resume_goes_on(
    make_study, federate, tmp_path
):
    study = make_study(federation={"rounds": 3, "quorum": 3})
    calls = {"site-2": 0}

    def fails_once(name, request):
        calls[name] += 1
        if request.round_number == 2 and calls[name] == 2:
            return records.Refusal(name, "data")
        return honest(name, request)

    with pytest.raises(FederationError, match=r"round 2 has 2 of the 3 updates .*site-2: data: .*--resume"):
        federate(study, {"site-2": fails_once})
    resumed, records_seen = federate(study, {"site-2": fails_once}, resume=True)
    undisturbed, _ = federate(study, folder="other")
    assert resumed.weights.tobytes() == undisturbed.weights.tobytes()
    assert [record.round for record in records_seen] == [1, 2, 3]
    assert len((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()) == 3


def test_a_lost_message_is_asked_again_and_counted_once(make_study, federate):
    study = make_study(federation={"rounds": 1})
    lost = {"site-1": 2}

    def loses(name, request):
        if lost[name]:
            lost[name] -= 1
            return Error(code=5, reason="Node Unavailable")
        return honest(name, request)

    done, [record] = federate(study, {"site-1": loses})
    undisturbed, _ = federate(study, folder="other")
    assert done.weights.tobytes() == undisturbed.weights.tobytes()
    assert record.sites["site-1"]["attempts"] == 3


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


def test_a_silent_site_is_left_out_at_the_deadline_without_a_strike(make_study, federate, monkeypatch):
    study = make_study(federation={"rounds": 1, "deadline_s": 60.0})
    release = threading.Event()
    admitted = []
    late_s = 0.0

    def sleeps(name, request):
        release.wait(60)
        return honest(name, request)

    def admit_and_look_at_the_clock(reply, terms, **facts):
        nonlocal late_s
        admitted.append(reply.site)
        late_s = 61.0 if len(admitted) == 2 else 0.0
        if len(admitted) == 2:
            release.set()
        return admit(reply, terms, **facts)

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late_s, sleep=time.sleep)
    monkeypatch.setattr("hilum.server.federation.exchange.time", clock)
    monkeypatch.setattr("hilum.server.federation.round_updates.admit", admit_and_look_at_the_clock)
    _, [record] = federate(study, {"site-0": sleeps})
    assert sorted(admitted) == ["site-1", "site-2"]
    assert record.failures == {"site-0": "late: no answer within 60 s"}
    assert federate.federation.roster._strikes == {}


@pytest.mark.parametrize("refused", [(), tuple(f"site-{n}" for n in range(2, 12))], ids=["all", "two"])
def test_memory_does_not_grow_with_the_number_of_sites(
    make_study, make_order, small_model, tmp_path, refused
):
    """Replies are let go one by one, without the garbage collector, which comes when it likes."""
    names = tuple(f"site-{n}" for n in range(12))
    EXAMPLES.update(dict.fromkeys(names[3:], 10))
    most = {}
    not_finite = dict.fromkeys(refused, changed(loss=float("nan")))
    small_model(1_000_000)
    for count in (3, 12):
        study = make_study(federation={"rounds": 2, "sites": count, "quorum": 2})
        signed, order = make_order(study)
        with (
            RunStore.open(tmp_path / str(count), order, resume=False) as store,
            InProcessGrid(make_client(not_finite, names=names), nodes=count, workers=1) as grid,
        ):
            grid._pool = LazyPool()
            federation = Federation(grid, RunSpec(signed, order, store, PACE))
            federation.gather()
            gc.collect()
            gc.disable()
            tracemalloc.start()
            try:
                done = federation.run_rounds(NullProgress(), lambda record: None)
                most[count] = tracemalloc.get_traced_memory()[1] / done.weights.nbytes
            finally:
                tracemalloc.stop()
                gc.enable()
    for name in names[3:]:
        del EXAMPLES[name]
    assert most[12] < most[3] + 0.5, most


def test_a_run_that_is_asked_to_stop_ends_within_a_second_and_can_be_resumed(make_study, federate):
    study = make_study(federation={"rounds": 3})
    stop, release, asked_at = threading.Event(), threading.Event(), []

    def asks_to_stop(name, request):
        if request.round_number == 2 and not asked_at:
            asked_at.append(time.monotonic())
            stop.set()
            release.wait(0.2)
        return honest(name, request)

    with pytest.raises(FederationError, match=r"the run was asked to stop, after 1 rounds; go on .*--resume"):
        federate(study, {"site-1": asks_to_stop}, stop=stop)
    assert time.monotonic() - asked_at[0] < 1
    resumed, _ = federate(study, resume=True)
    undisturbed, _ = federate(study, folder="other")
    assert resumed.weights.tobytes() == undisturbed.weights.tobytes()


def test_the_log_has_one_line_a_round_and_says_who_is_missing(make_study, federate, caplog):
    caplog.set_level(logging.INFO, "hilum")
    refuse = {"site-1": lambda name, request: records.Refusal(name, "data")}
    _, seen = federate(make_study(federation={"rounds": 2}), refuse)
    lines = [line for line in caplog.messages if line.startswith("round") and "of 2" in line]
    assert lines == [
        f"round {record.round} of 2: 2 of 3 sites, {record.wall_seconds:.1f} s, norm {record.update_norm:.4g}, "
        "loss site-0 1.0000, site-2 1.0000; without site-1: data"
        for record in seen
    ]
    assert "run run begins with site-0, site-1, site-2" in caplog.messages
    federate(make_study(federation={"rounds": 2}), refuse, resume=True)
    assert "run run goes on after round 2 with site-0, site-1, site-2" in caplog.messages


def test_a_second_one_of_a_name_is_refused_and_the_run_goes_on(make_study, federate, caplog):
    study = make_study(federation={"rounds": 1})
    _, [record] = federate(study, names=("site-0", "site-0", "site-1"))
    assert set(record.sites) == {"site-0", "site-1"}
    assert record.failures == {"site-2": "absent: it had not greeted when the round began"}
    assert federate.federation.roster.strangers == [
        "a site was refused at its greeting: wrong_site: a second site-0"
    ]
    assert "a site that the study does not know is refused at its greeting: wrong_site: a second site-0" in (
        caplog.messages
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("<script>", "wrong_format: the site's name is not a name"),
        ("site-7", "wrong_site: the study names no"),
    ],
)
def test_a_name_that_the_study_does_not_have_is_refused_and_not_repeated(
    make_study, federate, caplog, name, words
):
    hello = {name: lambda: records.Hello(name, 5)}
    federate(make_study(federation={"rounds": 1}), names=("site-0", name, "site-1"), hello=hello)
    [note] = federate.federation.roster.strangers
    assert words in note
    assert name not in caplog.text + note


def test_where_certificates_name_the_sites_a_greeting_can_not_say_otherwise(make_study, federate, caplog):
    lies = {"site-1": lambda: records.Hello("site-0", 30)}
    grid = NamedGrid(make_client(hello=lies))
    _, seen = federate(make_study(federation={"rounds": 9}), grid=grid)
    codes = [record.failures["site-1"].split(":")[0] for record in seen]
    # A round may be over before the greeting is answered.
    assert [code for code in codes if code != "absent"][:4] == [*["wrong_site"] * 3, "suspended"]
    assert all(record.contributed == 2 for record in seen)
    assert (
        "site-1 is refused at its greeting: "
        "wrong_site: the greeting has another name than the site's certificate" in caplog.messages
    )


@pytest.mark.parametrize("examples", [0, -1, 2**62])
def test_a_greeting_without_a_count_of_images_is_refused(make_study, federate, examples):
    hello = {"site-1": lambda: records.Hello("site-1", examples)}
    _, [record] = federate(make_study(federation={"rounds": 1}), hello=hello)
    assert record.failures["site-1"].startswith("no_examples: ")


def test_a_site_that_refuses_its_greeting_may_greet_again_at_the_next_round(make_study, federate):
    answers = [records.Refusal("site-1", "data"), records.Hello("site-1", 30)]
    hello = {"site-1": lambda: answers.pop(0)}
    _, seen = federate(make_study(federation={"rounds": 3}), hello=hello)
    assert seen[0].failures == {"site-1": f"data: {REFUSALS['data']}"}
    assert seen[1].failures == {"site-1": "absent: it had not greeted when the round began"} or (
        seen[1].contributed == 3
    )
    assert seen[2].contributed == 3


def test_refusals_that_leave_too_few_end_the_run_at_once_with_each_reason(make_study, federate):
    hello = {name: lambda name=name: records.Refusal(name, "policy_rounds") for name in ("site-0", "site-2")}
    started = time.monotonic()
    with pytest.raises(
        FederationError, match=r"1 of 3 sites .*site-0: policy_rounds: .*site-2: policy_"
    ) as e:
        federate(make_study(), hello=hello, pace=Polling(0.005, 30.0))
    assert REFUSALS["policy_rounds"] in str(e.value)
    assert time.monotonic() - started < 10


def test_missing_sites_are_waited_for_and_then_named(make_study, federate):
    sites = [f"site-{n}" for n in range(5)]
    study = make_study(federation={"sites": 5, "quorum": 4})
    with pytest.raises(FederationError, match=r"3 of 5 sites have greeted, 4 .*site-3: absent"):
        federate(study, sites=sites, pace=Polling(0.005, 1.0))


def test_a_run_begins_with_a_quorum_and_a_site_that_comes_later_joins_at_the_next_round(
    make_study, federate, caplog
):
    caplog.set_level(logging.INFO, "hilum")

    def comes(name, request):
        if request.round_number == 2:
            grid.gone.discard("site-2")
        if request.round_number >= 2:
            until = time.monotonic() + 10
            while "site-2 has greeted, with 20 images or more" not in caplog.messages:
                assert time.monotonic() < until
                time.sleep(0.01)
        return honest(name, request)

    grid = NamedGrid(make_client({"site-0": comes}))
    grid.gone.add("site-2")
    _, seen = federate(make_study(federation={"rounds": 3}), grid=grid, pace=Polling(0.005, 0.3))
    assert [record.contributed for record in seen] == [2, 2, 3]
    assert seen[0].failures == {"site-2": "absent: it had not greeted when the round began"}
    assert grid.limits[records.TRAIN] == 4 * federate.federation.manifest.size + 64 * 1024


def test_a_lost_site_is_told_and_waited_for_shortly_and_the_round_goes_on(make_study, federate, caplog):
    caplog.set_level(logging.INFO, "hilum")
    study = make_study(federation={"rounds": 4, "return_s": 0.3, "deadline_s": 60.0})
    release = threading.Event()

    def dies(name, request):
        if request.round_number == 2:
            grid.gone.add(name)
            release.wait(60)
        return honest(name, request)

    def returns(name, request):
        if request.round_number == 4:
            grid.gone.discard("site-1")
        if request.round_number == 3:
            release.set()
        return honest(name, request)

    grid = NamedGrid(make_client({"site-1": dies, "site-0": returns}))
    started = time.monotonic()
    _, seen = federate(study, grid=grid)
    assert time.monotonic() - started < 30
    failures = [record.failures for record in seen]
    assert failures == [{}, *[{"site-1": "lost: no sign of life"}] * 2, {}]
    assert seen[1].wall_seconds >= 0.3
    assert caplog.messages.count("site-1 lost: no sign of life") == 1
    assert caplog.messages.count("site-1 is back") == 1
    assert len(grid.withdrawn) == 1, "the message of round 2; that of round 3 was never pushed"
    assert federate.federation.roster.suspended == {}
    assert federate.federation.roster._strikes == {}, "to be lost is not a strike"


def test_a_lost_site_that_returns_in_time_is_in_the_round(make_study, federate, caplog):
    caplog.set_level(logging.INFO, "hilum")

    def flickers(name, request):
        grid.gone.add(name)
        until = time.monotonic() + 10
        while "site-1 lost: no sign of life" not in caplog.messages:
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.2)
        grid.gone.discard(name)
        time.sleep(0.2)
        return honest(name, request)

    grid = NamedGrid(make_client({"site-1": flickers}))
    done, [record] = federate(make_study(federation={"rounds": 1, "return_s": 30.0}), grid=grid)
    undisturbed, _ = federate(make_study(federation={"rounds": 1, "return_s": 30.0}), folder="other")
    assert record.contributed == 3
    assert done.weights.tobytes() == undisturbed.weights.tobytes()
    assert "site-1 is back" in caplog.messages


def test_lost_sites_are_waited_for_while_the_quorum_is_missing(make_study, federate):
    def dies_and_answers_late(name, request):
        grid.gone.add(name)
        time.sleep(0.5)
        grid.gone.discard(name)
        return honest(name, request)

    refuses = {"site-1": dies_and_answers_late, "site-2": lambda n, r: records.Refusal(n, "data")}
    grid = NamedGrid(make_client(refuses))
    _, [record] = federate(make_study(federation={"rounds": 1, "return_s": 0.01}), grid=grid)
    assert set(record.sites) == {"site-0", "site-1"}


def test_a_site_that_goes_away_is_asked_when_it_is_back():
    class Flickering(InProcessGrid):
        """Node 2 is offline for the first looks."""

        looks = 0

        def get_node_ids(self):
            self.looks += 1
            return [2, 3, 4] if self.looks > 2 else [3, 4]

    request = records.RecordDict({"facts": records.ConfigRecord({"run": "x"})})
    with Flickering(make_client(), nodes=3, workers=3) as grid:
        answers = list(
            exchange(grid, {n: lambda: request for n in (2, 3, 4)}, records.HELLO, deadline_s=60, poll_s=0.01)
        )
    assert {answer.node_id for answer in answers} == {2, 3, 4}
    assert all(answer.content is not None for answer in answers)


def test_sites_are_listed_by_name(make_study, federate):
    federate(make_study(federation={"rounds": 1}), names=("site-2", "site-0", "site-1"))
    assert federate.federation.roster.present == (
        Site("site-0", 3, 10),
        Site("site-1", 4, 30),
        Site("site-2", 2, 20),
    )
