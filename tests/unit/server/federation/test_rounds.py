"""The round loop: the mean, the quorum, the memory, and going on after a stop."""

import gc
import logging
import threading
import time
import tracemalloc

import numpy as np
import pytest

from federated_sites import EXAMPLES, PACE, LazyPool, changed, honest, make_client
from hilum.common import records
from hilum.common.errors import FederationError
from hilum.common.progress import NullProgress
from hilum.common.weights import apply_update
from hilum.server.federation.rounds import Federation
from hilum.server.federation.run_spec import RunSpec
from hilum.server.federation.store import RunStore
from hilum.simulations.grid import InProcessGrid


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


MOMENTUM = {"name": "fedavgm", "momentum": 0.5, "learning_rate": 2.0}


def test_a_study_chooses_its_aggregator_and_a_run_that_goes_on_has_the_same_bits(
    make_study, federate, small_model
):
    """The mean is the same in every round here, so with half of it kept the third step is 1 + 0.5 + 0.25 of it."""
    study = make_study(federation={"rounds": 3, "aggregator": MOMENTUM})
    undisturbed, records_seen = federate(study)
    mean = (10 * 10 + 30 * 30 + 20 * 20) / 60 / 1024
    moved = undisturbed.weights.astype(float) - small_model.base
    assert moved == pytest.approx(2 * mean * (1 + 1.5 + 1.75), rel=1e-6)
    norms = [record.update_norm / small_model.base.size**0.5 for record in records_seen]
    assert norms == pytest.approx([2 * mean, 3 * mean, 3.5 * mean], rel=1e-6)
    assert undisturbed.aggregator["momentum"] == pytest.approx(1.75 * mean, rel=1e-6)

    def killed_in(number):
        def answer(name, request):
            return (
                records.Refusal(name, "failed") if request.round_number == number else honest(name, request)
            )

        return dict.fromkeys(EXAMPLES, answer)

    for number in (2, 3):  # it goes on from a checkpoint after each
        with pytest.raises(FederationError, match=f"round {number} has 0 of the 2 updates"):
            federate(study, killed_in(number), folder="killed", resume=number > 2)
    resumed, _ = federate(study, folder="killed", resume=True)
    assert resumed.weights.tobytes() == undisturbed.weights.tobytes()
    assert resumed.aggregator["momentum"].tobytes() == undisturbed.aggregator["momentum"].tobytes()


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
