"""Sites that are lost, late or silent, and what is asked again."""

import logging
import threading
import time
from types import SimpleNamespace

from flwr.app import Error

from federated_sites import NamedGrid, honest, make_client
from hilum.common import records
from hilum.server.federation.admission import admit
from hilum.server.federation.exchange import exchange
from hilum.simulations.grid import InProcessGrid


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
