"""The link breaks, or the trainer dies, and what comes of it."""

import os
import signal
import sys
import time
from pathlib import Path

from flwr.proto import heartbeat_pb2, message_pb2

from federation_papers import identity_of
from fleet_server import FleetServer, Raw, http
from hilum.client.link import loop as loop_module
from hilum.client.link.trainer import Trainer
from hilum.common import records
from link_loop import LARGE, TRAINER, Running, request, wait_for_line

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
