"""The server's side against client apps that misbehave, on the in-process grid."""

import gc
import threading
import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, Error, Message
from flwr.clientapp import ClientApp

from hilum.common import records
from hilum.common.errors import FederationError, UpdateRefused
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest, get_federated
from hilum.common.progress import Quiet
from hilum.common.weights import apply_update, sha256_of
from hilum.server.federation.admission import admit
from hilum.server.federation.exchange import exchange
from hilum.server.federation.rounds import Pace, Site, gather, run_rounds
from hilum.server.federation.store import RunStore
from hilum.simulations.grid import InProcessGrid

PACE = Pace(poll_s=0.005, gather_s=0.5)
EXAMPLES = {"site-0": 10, "site-1": 30, "site-2": 20}


def honest(name, request):
    """Moves every weight by the site's number of examples, in thousandths."""
    base = request.base
    manifest = federated_manifest(build_method(request.config()))
    return records.TrainReply(
        name, request.round_number, sha256_of(manifest.unflatten(base)), EXAMPLES[name], 1.0, 0.1,
        np.full_like(base, EXAMPLES[name] / 1024),
    )  # fmt: skip


def make_client(train=None, names=tuple(EXAMPLES)):
    """A client app whose sites answer as `train` says, by name."""
    app = ClientApp()

    def name_of(context):
        return names[context.node_config["partition-id"]]

    @app.query()
    def hello(message, context):
        name = name_of(context)
        return Message(records.pack_hello(records.Hello(name, EXAMPLES[name])), reply_to=message)

    @app.train()
    def do_train(message, context):
        name = name_of(context)
        request = records.unpack_request(message.content)
        answer = (train or {}).get(name, honest)(name, request)
        if isinstance(answer, Error):
            return Message(answer, reply_to=message)
        content = (
            records.pack_refusal(answer)
            if isinstance(answer, records.Refusal)
            else records.pack_training_reply(answer)
        )
        return Message(content, reply_to=message)

    return app


def run(study, folder, train=None, *, resume=False):
    store = RunStore.open(folder, study, resume=resume)
    seen = []
    with InProcessGrid(make_client(train), nodes=3, workers=3) as grid:
        sites = gather(grid, study, store.run_id, PACE)
        done = run_rounds(grid, study, sites, store, PACE, Quiet(), seen.append)
    return done, seen


def changed(**facts):
    def answer(name, request):
        reply = honest(name, request)
        return records.TrainReply(**{**{f: getattr(reply, f) for f in reply.__dataclass_fields__}, **facts})

    return answer


def test_one_round_is_the_weighted_mean(make_study, tmp_path):
    study = make_study(federation={"rounds": 1})
    done, [record] = run(study, tmp_path / "run")
    base = get_federated(build_method(study))
    mean = (10 * 10 + 30 * 30 + 20 * 20) / 60 / 1024
    assert done.weights.tobytes() == apply_update(base, np.full(base.shape, mean)).tobytes()
    assert {name: facts["examples"] for name, facts in record.sites.items()} == EXAMPLES
    assert record.bytes_up == record.bytes_down == 3 * base.nbytes


def test_a_site_weighs_at_most_the_cap(make_study, tmp_path):
    study = make_study(federation={"rounds": 1, "example_cap": 10})
    done, _ = run(study, tmp_path / "run")
    base = get_federated(build_method(study))
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
        ({"loss": float("nan")}, "not_finite"),
    ],
)
def test_an_update_that_is_not_admitted_is_left_out_with_its_reason(make_study, tmp_path, facts, reason):
    study = make_study(federation={"rounds": 1, "quorum": 2})
    _, [record] = run(study, tmp_path / "run", {"site-1": changed(**facts)})
    assert set(record.sites) == {"site-0", "site-2"}
    assert record.failures["site-1"].startswith(f"{reason}: ")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda u: u * np.float32("nan"), "not_finite"),
        (lambda u: u * 1e6, "too_large"),
        (lambda u: u + np.float32("inf"), "not_finite"),
    ],
)
def test_a_poisoned_update_changes_nothing(make_study, tmp_path, spoil, reason):
    study = make_study(federation={"rounds": 1, "quorum": 2})

    def poisoned(name, request):
        reply = honest(name, request)
        return records.TrainReply(
            name, 1, reply.base_sha256, 10, 1.0, 0.1, spoil(reply.update).astype(np.float32)
        )

    with np.errstate(all="ignore"):
        done, [record] = run(study, tmp_path / "run", {"site-1": poisoned})
    assert record.failures["site-1"].startswith(reason)
    base = get_federated(build_method(study))
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
        lambda c: c.array_records["arrays"].update(
            update=Array("float32", (3,), "numpy.ndarray", b"pickled, perhaps")
        ),
    ],
)
def test_a_malformed_reply_costs_that_site_alone(make_study, tmp_path, monkeypatch, spoil):
    study = make_study(federation={"rounds": 1, "quorum": 2})
    pack = records.pack_training_reply

    def packed(reply):
        content = pack(reply)
        if reply.site == "site-1":
            spoil(content)
        return content

    monkeypatch.setattr(records, "pack_training_reply", packed)
    _, [record] = run(study, tmp_path / "run")
    assert record.failures["site-1"].startswith("wrong_format: ")
    assert set(record.sites) == {"site-0", "site-2"}


def test_results_that_are_not_the_senders_or_not_numbers_are_refused():
    row = {"site": "site-0", "value": 1.0}
    good = records.EvaluateReply("site-0", {"rows": [row], "comparisons": []})
    assert records.unpack_evaluation_reply(records.pack_evaluation_reply(good)) == good
    for site, table in [
        ("site-1", {"rows": [row], "comparisons": []}),
        ("site-0", {"rows": [{**row, "value": float("nan")}], "comparisons": []}),
        ("site-0", {"rows": [row]}),
        ("site-0", ["rows"]),
    ]:
        with pytest.raises(UpdateRefused):
            records.unpack_evaluation_reply(records.pack_evaluation_reply(records.EvaluateReply(site, table)))


def test_an_update_beyond_the_agreed_norm_is_refused():
    reply = records.TrainReply("a", 1, "x", 5, 1.0, 1.0, np.full(4, 1, np.float32))
    common = {"site": "a", "round_number": 1, "base_sha256": "x", "size": 4, "example_cap": 3}
    assert admit(reply, max_norm=2.0, **common) == 3
    with pytest.raises(UpdateRefused, match="too_large: the norm is 2"):
        admit(reply, max_norm=1.9, **common)


def test_too_few_updates_end_the_run_with_a_line_that_says_why_and_resume_goes_on(make_study, tmp_path):
    study = make_study(federation={"rounds": 3})
    calls = {"site-2": 0}

    def fails_once(name, request):
        calls[name] += 1
        if request.round_number == 2 and calls[name] == 2:
            return records.Refusal(name, "data", "site-2: no usable image")
        return honest(name, request)

    with pytest.raises(FederationError, match=r"round 2 has 2 of the 3 updates .*site-2: data: .*--resume"):
        run(study, tmp_path / "run", {"site-2": fails_once})
    resumed, records_seen = run(study, tmp_path / "run", {"site-2": fails_once}, resume=True)
    undisturbed, _ = run(study, tmp_path / "other")
    assert resumed.weights.tobytes() == undisturbed.weights.tobytes()
    assert [record.round for record in records_seen] == [1, 2, 3]
    assert len((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()) == 3


def test_a_lost_message_is_asked_again_and_counted_once(make_study, tmp_path):
    study = make_study(federation={"rounds": 1})
    lost = {"site-1": 2}

    def loses(name, request):
        if lost[name]:
            lost[name] -= 1
            return Error(code=5, reason="Node Unavailable")
        return honest(name, request)

    done, [record] = run(study, tmp_path / "run", {"site-1": loses})
    undisturbed, _ = run(study, tmp_path / "other")
    assert done.weights.tobytes() == undisturbed.weights.tobytes()
    assert record.sites["site-1"]["attempts"] == 3


def test_a_silent_site_is_dropped_at_the_deadline(make_study, tmp_path, monkeypatch):
    study = make_study(federation={"rounds": 1, "quorum": 2, "deadline_s": 60.0})
    release = threading.Event()
    admitted = []
    late_s = 0.0

    def sleeps(name, request):
        release.wait(60)
        return honest(name, request)

    def admit_and_look_at_the_clock(reply, **bounds):
        nonlocal late_s
        admitted.append(reply.site)
        late_s = 61.0 if len(admitted) == 2 else 0.0
        return admit(reply, **bounds)

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late_s, sleep=time.sleep)
    monkeypatch.setattr("hilum.server.federation.exchange.time", clock)
    monkeypatch.setattr("hilum.server.federation.rounds.admit", admit_and_look_at_the_clock)
    store = RunStore.open(tmp_path / "run", study, resume=False)
    with InProcessGrid(make_client({"site-0": sleeps}), nodes=3, workers=3) as grid:
        sites = gather(grid, study, store.run_id, PACE)
        done = run_rounds(grid, study, sites, store, PACE, Quiet(), lambda record: None)
        release.set()
    assert sorted(admitted) == ["site-1", "site-2"]
    assert done.rounds[0].failures == {"site-0": "lost: no answer within 60 s"}


def test_memory_does_not_grow_with_the_number_of_sites(make_study, tmp_path):
    """Replies are let go one by one, without the garbage collector, which comes when it likes."""
    names = tuple(f"site-{n}" for n in range(12))
    EXAMPLES.update(dict.fromkeys(names[3:], 10))
    most = {}
    for count in (3, 12):
        study = make_study(federation={"rounds": 1, "sites": count})
        store = RunStore.open(tmp_path / str(count), study, resume=False)
        with InProcessGrid(make_client(names=names), nodes=count, workers=1) as grid:
            sites = gather(grid, study, store.run_id, PACE)
            gc.collect()
            gc.disable()
            tracemalloc.start()
            try:
                done = run_rounds(grid, study, sites, store, PACE, Quiet(), lambda record: None)
                most[count] = tracemalloc.get_traced_memory()[1] / done.weights.nbytes
            finally:
                tracemalloc.stop()
                gc.enable()
    for name in names[3:]:
        del EXAMPLES[name]
    assert most[12] < most[3] + 3, most


def test_two_sites_of_one_name_are_refused(make_study):
    with (
        InProcessGrid(make_client(names=("site-0", "site-0", "site-1")), nodes=3, workers=1) as grid,
        pytest.raises(FederationError, match="two sites have one name"),
    ):
        gather(grid, make_study(), "run", PACE)


def test_a_name_that_is_no_name_is_refused(make_study):
    client = make_client(names=("site-0", "<script>", "site-1"))
    EXAMPLES["<script>"] = 1
    refused = pytest.raises(FederationError, match="the site's name is no name")
    with InProcessGrid(client, nodes=3, workers=1) as grid, refused:
        gather(grid, make_study(), "run", PACE)
    del EXAMPLES["<script>"]


def test_missing_sites_are_waited_for_and_then_named(make_study):
    waited = pytest.raises(FederationError, match=r"3 of 5 sites came online within 0.5 s")
    with InProcessGrid(make_client(), nodes=3, workers=1) as grid, waited:
        gather(grid, make_study(federation={"sites": 5}), "run", PACE)


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


def test_sites_are_listed_by_name(make_study):
    with InProcessGrid(make_client(names=("site-2", "site-0", "site-1")), nodes=3, workers=3) as grid:
        assert gather(grid, make_study(), "run", PACE) == [
            Site("site-0", 3, 10),
            Site("site-1", 4, 30),
            Site("site-2", 2, 20),
        ]
