"""The loop against a server on loopback and a trainer in a process: what breaks, and what comes of it."""

import itertools
import logging
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2

from fleet_server import FleetServer, Papers, Raw, http, identity_of, link_of, server_context
from hilum.client.link import loop as loop_module
from hilum.client.link.identity import read_identity
from hilum.client.link.loop import LinkEnded, Loop
from hilum.client.link.trainer import Trainer
from hilum.common import records
from hilum.common.files import read_json
from hilum.common.supervise import Stamp
from places import SUPPORT

TRAINER = SUPPORT / "stand_in_trainer.py"
LARGE = 22 * 2**20


def request(do="echo", size_bytes=0) -> RecordDict:
    parts = {"facts": ConfigRecord({"do": do})}
    if size_bytes:
        values = np.random.default_rng(1).integers(0, 255, size_bytes, dtype=np.uint8).tobytes()
        parts["arrays"] = ArrayRecord({"weights": Array("float32", (size_bytes // 4,), "hilum.flat", values)})
    return RecordDict(parts)


class StopStamp(Stamp):
    """Ends the loop from its own thread, as a signal ends it in its process."""

    def __init__(self, path):
        super().__init__(path)
        self.stopping, self.touches = False, []

    def touch(self):
        super().touch()
        self.touches.append(time.monotonic())
        if self.stopping:
            raise SystemExit


class Running:
    """A loop in a thread."""

    def __init__(self, folder: Path, trainer: "WarmTrainer", read_papers, **kinds) -> None:
        self.stamp, self.trainer = StopStamp(folder / "stamp"), trainer
        self.acknowledged = folder / "acknowledged.json"
        self.loop = Loop(read_papers, trainer, self.stamp, self.acknowledged, **kinds)
        self.ended: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.loop.run()
        except BaseException as ended:
            self.ended = ended

    def stop(self):
        self.stamp.stopping = True
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.ended

    def taken(self) -> list[str]:
        return [do for _, do in self.trainer.taken()]


class WarmTrainer(Trainer):
    """A trainer that outlives the loops of several tests, unless it was killed: starting one takes a second."""

    def __init__(self, folder: Path) -> None:
        super().__init__([sys.executable, str(TRAINER), str(folder)])
        self.folder = folder

    def stop(self) -> None:
        if self._process is None or self._process.child.poll() is not None:
            super().stop()

    def taken(self) -> list[tuple[int, str]]:
        """Process and word of each message that was worked on in this test."""
        path = self.folder / "taken"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), do) for pid, do in (line.split(" ", 1) for line in lines)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    trainer = WarmTrainer(tmp_path_factory.mktemp("trainer"))
    yield trainer
    Trainer.stop(trainer)


@pytest.fixture
def warm(kept):
    (kept.folder / "taken").unlink(missing_ok=True)
    kept.start()  # in this thread, which outlives the loop's
    return kept


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(loop_module, "_FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(loop_module, "_MAX_WAIT_S", 0.4)
    monkeypatch.setattr(loop_module, "HEARTBEAT_S", 0.2)


@pytest.fixture
def papers(tmp_path):
    return Papers(tmp_path / "federation")


@pytest.fixture
def server(papers):
    with FleetServer(papers) as made:
        yield made


@pytest.fixture
def start(papers, server, tmp_path, warm):
    made = []

    def run(read_papers=None, port=None, **kinds):
        if read_papers is None:
            identity = identity_of(papers, f"localhost:{port or server.port}")
            read_papers = lambda: identity  # noqa: E731 - two words for one value
        made.append(Running(tmp_path, warm, read_papers, **kinds))
        return made[-1]

    yield run
    for one in made:
        one.stop()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "hilum")
    return lambda: caplog.messages


def wait_for_line(lines, words, patience_s=10):
    until = time.monotonic() + patience_s
    while not any(words in line for line in lines()):
        assert time.monotonic() < until, f"{words!r} is not among {lines()}"
        time.sleep(0.02)


# A day like any other.


@pytest.mark.parametrize("size_bytes", [0, LARGE], ids=["small", "several objects"])
def test_a_message_is_fetched_worked_on_and_answered(server, start, lines, size_bytes):
    running = start()
    content = request("echo", size_bytes)
    answer = server.answer_to(server.say(content))
    assert answer["facts"] == content["facts"]
    assert not size_bytes or answer["arrays"] == content["arrays"]
    assert answer["did"]["do"] == "echo"
    server.answer_to(server.say(request("again"), kind="evaluate"))
    assert len(set(server.confirmed)) == 2
    assert server.calls.count("activate-node") == 1
    assert isinstance(running.stop(), SystemExit)
    assert server.calls[-1] == "deactivate-node"
    wait_for_line(lines, f"connected to localhost:{server.port} as site-a")
    wait_for_line(lines, "training")
    wait_for_line(lines, "evaluating")
    wait_for_line(lines, "sent ")
    assert read_json(running.acknowledged)["server"] == f"localhost:{server.port}"


def test_the_round_is_said(server, start, lines):
    start()
    facts = {"document": b"x", "signature": b"x", "round": 4}
    server.answer_to(server.say(RecordDict({"facts": ConfigRecord(facts), "arrays": ArrayRecord({})})))
    wait_for_line(lines, "round 4: training")
    wait_for_line(lines, "round 4: sent")


def test_the_trainer_is_warm_and_one_for_all_messages(server, start, warm):
    start()
    for _ in range(3):
        server.answer_to(server.say(request()))
    assert len(warm.taken()) == 3
    assert len({pid for pid, _ in warm.taken()}) == 1


def test_heartbeats_go_on_and_the_loop_stamps_while_the_trainer_works(server, start):
    running = start()
    message = server.say(request("take 2.0"))
    server.wait(running.taken)
    beats, began = server.calls.count("send-node-heartbeat"), len(running.stamp.touches)
    server.answer_to(message)
    assert server.calls.count("send-node-heartbeat") - beats >= 4
    touches = running.stamp.touches[began - 1 :]
    assert max(after - before for before, after in itertools.pairwise(touches)) < 0.8


# The link breaks.


def test_a_server_that_is_away_is_waited_for(papers, start, lines, server):
    port = server.port
    server.close()
    start(port=port)
    wait_for_line(lines, f"cannot reach localhost:{port} (connection refused")
    time.sleep(0.5)
    with FleetServer(papers, port=port) as back:
        back.answer_to(back.say(request()))
    # More tries, and one line; once more if another trouble came between, while the server started.
    assert sum("cannot reach" in line for line in lines()) <= 2


def test_a_cut_while_sending_is_taken_up_with_the_missing_objects_alone(server, start):
    server.cut_at = 3
    start()
    content = request("twice", LARGE)
    message = server.say(content)
    assert server.answer_to(message)["arrays"] == content["arrays"]
    assert server.cut_at is None  # it was cut
    assert server.calls.count("push-object") == len(server.stored) + 1  # the one that was cut, once more


def test_a_server_that_asks_for_an_object_again_and_again_does_not_get_it(server, start, lines):
    """What a run may send is counted once a reply."""
    server.script["push-object"] = lambda *_: message_pb2.PushObjectResponse(stored=False).SerializeToString()
    start()
    server.say(request())
    wait_for_line(lines, "does not take the answer")
    assert server.calls.count("push-object") == 4


def test_a_server_that_is_gone_for_a_while_costs_no_work_and_nothing_is_sent_twice(
    papers, server, start, lines
):
    """What was computed waits for the server, which remembers what it has."""
    running = start()

    def goes(_server, _body):
        if len(server.stored) == 3:
            server.close()

    server.script["push-object"] = goes
    content = request("twice", LARGE)
    message = server.say(content)
    wait_for_line(lines, "cannot reach")
    with FleetServer(papers, port=server.port) as back:
        back.stored.update(server.stored)
        had = set(back.stored)  # the object at which it went may have been stored while it closed
        assert len(had) >= 3
        assert back.answer_to(message)["arrays"] == content["arrays"]
        assert back.calls.count("push-object") == len(set(back.stored) - had) > 0
    assert running.taken() == ["twice"]


def test_a_server_that_hangs_up_again_and_again_is_more_than_a_cut(server, start, lines):
    start()
    server.answer_to(server.say(request()))
    server.script["pull-messages"] = lambda *_: Raw(b"")
    wait_for_line(lines, "was cut")
    wait_for_line(lines, "does not admit this site's certificate, or takes it for out of date")
    del server.script["pull-messages"]
    server.answer_to(server.say(request("next")))


def test_objects_that_have_arrived_are_not_asked_for_again(server, start):
    failed = []

    def once(_server, body):
        if len(server.pulled) == 3 and not failed:
            failed.append(1)
            return http(503)
        return None

    server.script["pull-object"] = once
    start()
    server.answer_to(server.say(request("echo", LARGE)))
    assert failed
    again = len(server.pulled) - len(set(server.pulled))
    assert again <= 1  # three had arrived; one on its way may be cut on a loaded machine


def test_an_object_that_is_not_there_yet_is_asked_for_again(server, start):
    asked = []

    def later(_server, body):
        asked.append(1)
        if len(asked) <= 2:
            return message_pb2.PullObjectResponse(object_found=True).SerializeToString()
        return None

    server.script["pull-object"] = later
    start()
    server.answer_to(server.say(request()))


def test_a_lost_link_is_told_while_the_work_goes_on(server, start, lines):
    start()
    message = server.say(request("take 1.5"))
    wait_for_line(lines, "training")
    server.script["send-node-heartbeat"] = lambda *_: http(503)
    wait_for_line(lines, "the work goes on meanwhile")
    del server.script["send-node-heartbeat"]
    server.answer_to(message)


def test_a_server_that_forgot_this_site_is_told_again(server, start):
    start()
    server.wait(lambda: server.calls.count("pull-messages") > 1)
    forgot = heartbeat_pb2.SendNodeHeartbeatResponse(success=False).SerializeToString()
    server.script["send-node-heartbeat"] = lambda *_: forgot
    server.wait(lambda: server.calls.count("activate-node") > 1)
    del server.script["send-node-heartbeat"]
    server.answer_to(server.say(request()))


def test_the_loop_stamps_while_it_waits_for_its_next_try(server, start, lines, monkeypatch):
    monkeypatch.setattr(loop_module, "_FIRST_WAIT_S", 4.0)
    monkeypatch.setattr(loop_module, "_MAX_WAIT_S", 4.0)
    port = server.port
    server.close()
    running = start(port=port)
    wait_for_line(lines, "cannot reach")
    before, until = len(running.stamp.touches), time.monotonic() + 1.8  # less than the shortest wait
    while len(running.stamp.touches) - before < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(running.stamp.touches) - before >= 2


# What the server says no to, and when.


@pytest.mark.parametrize("status", [403, 409, 410])
def test_an_answer_to_a_message_that_the_server_has_closed_is_dropped(server, start, lines, status):
    server.script["push-messages"] = lambda *_: http(status)
    start()
    server.say(request())
    wait_for_line(lines, "the server has closed this message")
    del server.script["push-messages"]
    server.answer_to(server.say(request("next")))


@pytest.mark.parametrize("status", [400, 413])
def test_an_answer_that_the_server_does_not_take_is_dropped(server, start, lines, status):
    server.script["push-object"] = lambda *_: http(status)
    start()
    server.say(request())
    wait_for_line(lines, f"does not take the answer ({status})")
    del server.script["push-object"]
    server.answer_to(server.say(request("next")))


def test_the_same_message_once_more_is_not_worked_on_again(server, start):
    running = start()
    message = server.say(request("one"))
    server.answer_to(message)
    server.say_again(message)
    server.answer_to(server.say(request("two")))
    assert running.taken() == ["one", "two"]


def test_a_site_that_is_not_admitted_waits_and_joins_once_it_is(server, start, lines):
    server.script["activate-node"] = lambda *_: http(401)
    start()
    wait_for_line(lines, "not approved yet, is revoked")
    del server.script["activate-node"]
    server.answer_to(server.say(request()))


def test_a_server_with_another_idea_of_the_sites_number_is_not_this_federations(server, start, lines):
    odd = fleet_pb2.ActivateNodeResponse(node_id=server.node_id + 2).SerializeToString()
    server.script["activate-node"] = lambda *_: odd
    start()
    wait_for_line(lines, "another number")
    assert "pull-messages" not in server.calls


# Time.


def test_an_answer_that_nobody_waits_for_any_more_is_not_worked_out(server, start, lines):
    running = start()
    server.answer_to(server.say(request("first")))  # so that the trainer is warm
    server.say(request("take 60"), ttl=1.5)
    wait_for_line(lines, "the time for an answer is over")
    server.answer_to(server.say(request("next")))  # by a trainer that was started anew
    assert running.taken() == ["first", "take 60", "next"]


def test_a_message_that_is_over_when_it_comes_is_dropped(server, start, lines):
    running = start()
    server.say(request("late"), ttl=5.0, age_s=6.0)
    wait_for_line(lines, "the time for an answer is over")
    server.answer_to(server.say(request("next")))
    assert running.taken() == ["next"]


def test_a_computed_answer_waits_for_the_server_until_its_time_is_over(server, start, lines):
    server.script["push-messages"] = lambda *_: http(503)
    start()
    server.say(request(), ttl=2.0)
    wait_for_line(lines, "busy")
    wait_for_line(lines, "the time for an answer is over")


@pytest.mark.parametrize("ahead_s", [1200, -1200])
def test_a_clock_that_is_20_minutes_off_is_told_and_costs_nothing(papers, start, lines, ahead_s):
    with FleetServer(papers, clock_s=-ahead_s) as other:
        start(port=other.port)
        other.answer_to(other.say(request(), ttl=10.0))
        wait_for_line(lines, "this machine's clock is 20 minutes")


# The trainer.


def test_a_trainer_that_dies_once_is_started_again_for_the_same_message(server, start, lines):
    running = start()
    answer = server.answer_to(server.say(request("die once")))
    assert answer["did"]["do"] == "die once"
    assert running.taken() == ["die once"] * 2
    wait_for_line(lines, "the training process died: it was ended by SIGKILL")


def test_a_trainer_that_dies_twice_is_a_refusal_and_the_next_message_is_worked_on(server, start, lines):
    running = start()
    answer = server.answer_to(server.say(request("die")))
    assert records.unpack_refusal(answer) == records.Refusal("site-a", "trainer_died")
    assert running.taken() == ["die"] * 2
    assert server.answer_to(server.say(request("next")))["did"]["do"] == "next"


def test_a_trainer_that_died_between_two_messages_costs_nothing(server, start, warm):
    start()
    server.answer_to(server.say(request()))
    os.kill(warm.taken()[0][0], signal.SIGKILL)
    assert server.answer_to(server.say(request("next")))["did"]["do"] == "next"


def test_a_trainer_that_hangs_is_killed_with_all_that_it_started(server, start, lines, warm):
    start()
    server.answer_to(server.say(request("first")))  # so that the trainer is warm
    server.say(request("hang"), ttl=2.0)
    wait_for_line(lines, "the time for an answer is over")
    pids = [warm.taken()[1][0], int((warm.folder / "grandchild").read_text())]
    server.wait(lambda: not any(is_there(pid) for pid in pids))


def test_a_trainer_that_is_stopped_can_be_killed_too(server, start, lines, warm):
    """One that does not even read what it is sent, more than a pipe holds."""
    start()
    server.answer_to(server.say(request()))
    os.kill(warm.taken()[0][0], signal.SIGSTOP)
    server.say(request("more", LARGE), ttl=2.0)
    wait_for_line(lines, "the time for an answer is over")
    server.answer_to(server.say(request("next")))


def test_what_a_failure_says_stays_here(server, start):
    start()
    answer = server.answer_to(server.say(request("fail")))
    assert records.unpack_refusal(answer) == records.Refusal("site-a", "failed")
    assert b"ZZPHI" not in b"".join(server.received.values())


def test_the_end_of_the_loop_is_the_end_of_the_trainer(papers, server, tmp_path, warm):
    identity = identity_of(papers, f"localhost:{server.port}")
    trainer = Trainer([sys.executable, str(TRAINER), str(warm.folder)])
    running = Running(tmp_path, trainer, lambda: identity)
    server.answer_to(server.say(request()))
    running.stop()
    assert not is_there(warm.taken()[0][0])


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


# A server that means harm.


def test_a_message_that_is_too_large_is_refused_before_all_of_it_came(server, start, lines):
    running = start(at_most_bytes=8 * 2**20)
    answer = server.answer_to(server.say(request("large", LARGE)))
    assert records.unpack_refusal(answer) == records.Refusal("site-a", "wrong_format")
    wait_for_line(lines, "larger than this site takes")
    assert len(server.pulled) <= 3
    assert running.taken() == []


def test_a_lying_object_is_refused(server, start):
    running = start()
    message = server.say(request("echo", 10**6))
    largest = max(server.objects, key=lambda key: len(server.objects[key]))
    server.objects[largest] = server.objects[largest][:-1] + b"x"
    assert records.unpack_refusal(server.answer_to(message)).code == "wrong_format"
    assert running.taken() == []


def test_a_message_for_another_site_is_not_even_fetched(server, start, lines):
    running = start()
    content = request()
    server.node_id += 2
    server.say(content)
    server.node_id -= 2
    wait_for_line(lines, "a message was not taken: it is addressed to another site")
    assert server.pulled == []
    server.answer_to(server.say(request("next")))
    assert running.taken() == ["next"]


def test_bundles_and_runs_are_neither_asked_for_nor_opened(server, start, tmp_path):
    """What a server adds to an answer, in fields that this protocol does not have, is ignored."""
    field = bytes([0x7A, 5]) + b"PK\x03\x04x"  # field 15: a bundle, as far as anyone can tell

    def with_bundle(_server, body):
        return server.pull_messages(body) + field

    server.script["pull-messages"] = with_bundle
    server.script["activate-node"] = lambda _, body: server.activate_node(body) + field
    start()
    assert server.answer_to(server.say(request()))["did"]["do"] == "echo"
    allowed = {
        "activate-node",
        "send-node-heartbeat",
        "pull-messages",
        "pull-object",
        "confirm-message-received",
    }
    assert set(server.calls) <= {*allowed, "push-messages", "push-object", "deactivate-node"}


def test_a_server_that_asks_for_what_was_never_announced_gets_nothing(server, start, lines):
    odd = fleet_pb2.PushMessagesResponse(objects_to_push=["../../etc/passwd"]).SerializeToString()
    server.script["push-messages"] = lambda *_: odd
    start()
    server.say(request(), ttl=2.0)
    wait_for_line(lines, "never announced")
    assert "push-object" not in server.calls


# Papers that end.


def test_another_federations_server_ends_the_link_for_good(papers, start, tmp_path):
    other = Papers(tmp_path / "other", "other")
    with FleetServer(other, tls=server_context(other)) as foreign:
        running = start(port=foreign.port)
        running.thread.join(10)
        assert isinstance(running.ended, LinkEnded)
        assert "not of this federation" in str(running.ended)


def test_another_server_on_a_known_address_is_waited_out(papers, server, start, lines, tmp_path):
    running = start()
    server.answer_to(server.say(request()))
    port = server.port
    server.close()
    other = Papers(tmp_path / "other", "other")
    with FleetServer(other, tls=server_context(other), port=port):
        wait_for_line(lines, "not of this federation")
    with FleetServer(papers, port=port) as back:
        back.answer_to(back.say(request("next")))
    assert running.ended is None


def test_a_loop_that_was_started_again_remembers_that_it_knew_the_server(
    papers, server, start, lines, tmp_path
):
    first = start()
    wait_for_line(lines, "connected")
    first.stop()
    server.close()
    other = Papers(tmp_path / "other", "other")
    with FleetServer(other, tls=server_context(other), port=server.port):
        running = start()
        wait_for_line(lines, "not of this federation")
        time.sleep(0.3)
        assert running.ended is None


def test_an_expired_certificate_ends_the_link_for_good(papers, server, start, lines):
    short = papers.site(ends=timedelta(seconds=1.5))
    link = link_of(papers, f"localhost:{server.port}", short)
    running = start(read_papers=lambda: read_identity(link, "site-a"))
    wait_for_line(lines, "this site's certificate ends in 0 days")
    time.sleep(1.6)
    server.script["pull-messages"] = lambda *_: http(401)
    running.thread.join(10)
    assert isinstance(running.ended, LinkEnded)
    assert "this site's certificate expired" in str(running.ended)


def test_a_certificate_that_was_renewed_in_time_is_taken_up(papers, server, start, lines):
    short = papers.site(ends=timedelta(seconds=2))
    link = link_of(papers, f"localhost:{server.port}", short)
    start(read_papers=lambda: read_identity(link, "site-a"))
    server.answer_to(server.say(request()))
    papers.site()  # `hilum site join` puts the new one in the same place
    time.sleep(2.1)
    server.script["pull-messages"] = lambda *_: http(401)
    wait_for_line(lines, "certificate expired")  # the one that the loop has; it then finds the new one
    del server.script["pull-messages"]
    server.answer_to(server.say(request("next")))


def test_a_certificate_that_was_renewed_is_taken_up_and_not_asked_for_again(papers, server, start, lines):
    short = papers.site(ends=timedelta(days=3))
    link = link_of(papers, f"localhost:{server.port}", short)

    def read_papers():
        found = read_identity(link, "site-a")
        papers.site()  # `hilum site join`, right after
        return found

    start(read_papers=read_papers)
    server.answer_to(server.say(request()))
    wait_for_line(lines, "connected")
    assert not any("this site's certificate ends" in line for line in lines())


def test_a_message_that_is_not_taken_does_not_make_the_loop_spin(server, start, lines):
    kept = []

    def always(_server, body):
        if not kept:
            found = fleet_pb2.PullMessagesResponse.FromString(server.pull_messages(body))
            found.messages_list[0].metadata.message_type = "system"
            kept.append(found.SerializeToString())
        return kept[0]

    server.say(request())
    server.script["pull-messages"] = always
    start()
    wait_for_line(lines, "a message was not taken")
    time.sleep(1)
    assert server.calls.count("pull-messages") < 30
