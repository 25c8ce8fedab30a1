"""What the loop does with a message, from its arrival to its answer, and what the server says no to."""

import itertools
import time

import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.proto import fleet_pb2

from fleet_server import FleetServer, http
from hilum.common.files import read_json
from link_loop import LARGE, request, wait_for_line

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
