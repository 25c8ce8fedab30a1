"""A delivery or an update that is cut, a time that is over, and calls that end while they are held."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from flwr.app import Error, Message
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest

from gate_site import (
    FLEET,
    SITES,
    Trial,
    answer_to,
    connection,
    head,
    only,
    question,
    refusal,
    weights_record,
)
from hilum.server.gate import GateBounds, GateGrid

MB = 10**6


def test_a_site_whose_process_is_new_gets_again_what_it_did_not_answer(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    site.activate()
    first, second = grid.push_messages([question(text="one"), question(text="two")])
    answered = site.read(site.wait())
    site.answer(answer_to(answered))
    half = answer_to(site.read(site.wait()))
    site.announce(half)
    assert site.fleet.PullMessages(PullMessagesRequest(node=site.node)).messages_list == []
    site.activate()
    mailbox = trial.gate._mailbox
    assert mailbox._sites[SITES[0]].arriving is None  # the half-sent reply is forgotten
    again = site.read(site.wait())
    assert again.content["facts"]["text"] == "two"
    site.answer(answer_to(again, "second"))
    assert site.take() is None
    texts = [only(grid, one).content["facts"]["text"] for one in (first, second)]
    assert texts == ["yes", "second"]


def test_a_message_whose_delivery_was_lost_is_delivered_again(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(redeliver_after_s=0.3, poll_s=0.1))
    with trial.gate.grid("run-1", SITES) as grid:
        site = trial.site()
        grid.push_messages([question()])
        lost = site.wait()
        assert site.take() is None
        again = site.wait()
        assert again.tree == lost.tree
        message = site.read(again)  # which confirms it
        time.sleep(0.4)
        assert site.take() is None
        (second,) = grid.push_messages([question(text="two")])
        unconfirmed = site.wait()
        for _ in range(3):  # a site that asks for objects is at work on it
            time.sleep(0.2)
            site.fleet.PullObject(
                PullObjectRequest(
                    node=site.node, run_id=message.metadata.run_id, object_id=unconfirmed.tree.object_id
                )
            )
        assert site.take() is None
        unconfirmed.message.metadata.__dict__["_message_id"] = second
        site.announce(answer_to(unconfirmed.message))  # and so is one that answers
        time.sleep(0.4)
        assert site.take() is None


def test_an_update_goes_on_where_it_was_cut(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    grid.reply_limit("train", 40 * MB)
    (message_id,) = grid.push_messages([Message(weights_record(4), site.node_id, "train", ttl=60)])
    reply = Message(weights_record(20 * MB), reply_to=site.read(site.wait()))
    announced = site.announce(reply)
    everything = set(announced.objects_to_push)
    some = set(sorted(everything)[:3])
    announced.objects_to_push[:] = some
    site.send(reply, announced)
    rest = site.announce(reply)
    assert set(rest.objects_to_push) == everything - some
    site.send(reply, rest)
    assert only(grid, message_id).has_content()


def test_what_is_sent_twice_counts_once(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    (message_id,) = grid.push_messages([question()])
    taken = site.wait()
    reply = answer_to(site.read(taken))
    announced = site.announce(reply)
    first = sorted(announced.objects_to_push)[:1]
    once = type(announced)(session_id=announced.session_id, objects_to_push=first)
    site.send(reply, once)
    site.send(reply, once)
    site.send(reply, announced)
    site.send(reply, once)  # the answer to the last object was lost, and the site sends it again
    assert site.announce(reply).objects_to_push == []
    assert only(grid, message_id).has_content()
    assert trial.gate._mailbox._messages[message_id].reply is None  # the grid has it, the gate not any more
    assert list(grid.pull_messages([message_id])) == []
    site.send(reply, announced)
    assert site.announce(reply).objects_to_push == []
    site.fleet.ConfirmMessageReceived(
        ConfirmMessageReceivedRequest(
            node=site.node, run_id=taken.message.metadata.run_id, message_object_id=message_id
        )
    )
    assert list(grid.pull_messages([message_id])) == []


def test_a_site_that_reports_a_failure_is_an_error_in_our_words(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    (message_id,) = grid.push_messages([question()])
    site.answer(Message(Error(1234, "Mr Smith, born\x1b[2J"), reply_to=site.read(site.wait())))
    error = only(grid, message_id).error
    assert (error.code, error.reason) == (2, "the site's program failed")


def test_a_message_whose_time_is_over_is_dropped_and_says_so(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    late, never = grid.push_messages([question(ttl=0.5), question(text="never", ttl=0.5)])
    message = site.read(site.wait())
    reply = answer_to(message)
    half = site.announce(reply)
    time.sleep(0.6)
    assert site.take() is None  # the other one is gone
    with pytest.raises(httpx.HTTPStatusError) as sending:
        site.send(reply, half)
    assert refusal(sending.value) == (403, "not_announced")
    with pytest.raises(httpx.HTTPStatusError) as announcing:
        site.announce(reply)
    assert refusal(announcing.value) == (410, "expired")
    assert {one.error.code for one in grid.pull_messages([late, never])} == {3}
    assert len(trial.gate._mailbox._objects) == 0


def test_what_is_answered_and_over_is_forgotten(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    (message_id,) = grid.push_messages([question(ttl=1.5)])
    site.answer(answer_to(site.read(site.wait())))
    assert only(grid, message_id).has_content()
    time.sleep(1.6)
    assert site.take() is None
    assert trial.gate._mailbox._messages == {}


def test_waiting_ends_when_the_time_of_a_message_is_over(grid: GateGrid) -> None:
    begin = time.perf_counter()
    (reply,) = grid.send_and_receive([question(ttl=0.3)])
    assert reply.error.code == 3
    assert list(grid.send_and_receive([question(text="two")], timeout=0.1)) == []
    assert time.perf_counter() - begin < 3


def test_a_grid_that_is_closed_leaves_nothing_behind(trial: Trial) -> None:
    site = trial.site()
    grid = trial.gate.grid("run-1", SITES)
    other = trial.gate.grid("run-2", SITES)
    (message_id,) = grid.push_messages([question()])
    (kept,) = other.push_messages([question(text="kept")])
    reply = answer_to(site.read(site.wait()))
    site.announce(reply)
    grid.close()
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        site.announce(reply)
    assert not grid.wait([message_id], 5)
    assert list(trial.gate._mailbox._messages) == [kept]
    site.answer(answer_to(site.read(site.wait())))
    assert other.wait([kept], 5)
    assert list(grid.pull_messages([kept])) == []  # another run's
    assert only(other, kept).has_content()


def test_a_message_is_not_given_to_a_caller_that_hung_up(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(poll_s=5.0, recheck_s=5.0))
    with trial.gate.grid("run-1", SITES) as grid:
        site = trial.site()
        body = PullMessagesRequest(node=site.node).SerializeToString()
        with connection(site.context, trial.thread.port) as tls:
            tls.sendall(head(f"{FLEET}/pull-messages", f"content-length: {len(body)}") + body)
            time.sleep(0.3)
        time.sleep(0.3)
        grid.push_messages([question()])
        begin = time.perf_counter()
        assert site.wait().message.has_content()
        assert time.perf_counter() - begin < 2


def test_a_call_that_is_woken_for_nothing_is_held_on_quietly(
    start: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = start(GateBounds(poll_s=1.0))
    asked: list[bytes] = []
    name_of = trial.federation.name_of
    monkeypatch.setattr(trial.federation, "name_of", lambda der: asked.append(der) or name_of(der))
    site = trial.site()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(site.take)
        time.sleep(0.3)
        trial.gate._mailbox.wake_all()
        assert held.result() is None
    assert len(asked) < 10


def test_the_server_ends_soon_while_a_call_is_held(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(poll_s=10.0))
    site = trial.site()
    held = threading.Thread(target=site.take)
    held.start()
    time.sleep(0.3)
    begin = time.perf_counter()
    trial.thread.server.should_exit = True
    held.join()
    assert time.perf_counter() - begin < 1.5
