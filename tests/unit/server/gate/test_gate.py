"""What the gate does for honest sites: Flower's own client takes messages and answers them."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from flwr.app import Error, Message
from flwr.proto.fleet_pb2 import DeactivateNodeRequest, PullMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.fleet_http_connection import http_request_response

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
from hilum.common.errors import FederationError
from hilum.common.wire_ids import SERVER_NODE_ID, node_id_of, run_id_of
from hilum.server.gate import Gate, GateBounds, GateGrid, make_server

MB = 10**6


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    trials: list[Trial] = []

    def make(bounds: GateBounds | None = None) -> Trial:
        trials.append(Trial(tmp_path / str(len(trials)), bounds).start())
        return trials[-1]

    yield make
    for trial in trials:
        trial.stop()


@pytest.fixture
def trial(start: Callable[..., Trial]) -> Trial:
    return start()


@pytest.fixture
def grid(trial: Trial) -> Iterator[GateGrid]:
    with trial.gate.grid("run-1", SITES) as grid:
        yield grid


def test_flowers_own_supernode_connection_takes_a_message_and_answers_it(
    trial: Trial, grid: GateGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = SITES[0]
    identity = trial.identities[name]
    context = trial.federation.client_context(identity)
    stock = FleetHttpClient(f"https://127.0.0.1:{trial.thread.port}", verify=context)
    monkeypatch.setattr(FleetHttpClient, "from_server_address", lambda *_, **__: stock)
    (message_id,) = grid.push_messages([question(text="how many?")])
    keys = (identity.private_key, identity.private_key.public_key())
    with http_request_response("unused", insecure=False, authentication_keys=keys) as connection:
        node_id, receive, send, _run, _fab, pull_object, push_object, confirm = connection
        message, tree = receive() or pytest.fail("no message")
        run_id = message.metadata.run_id
        message = pull_and_inflate_object_from_tree(
            tree,
            lambda object_id: pull_object(run_id, object_id),
            lambda object_id: confirm(run_id, object_id),
            return_type=Message,
        )
        message.metadata.__dict__["_message_id"] = tree.object_id
        assert message.content["facts"]["text"] == "how many?"
        reply = answer_to(message, "three")
        reply.metadata.__dict__["_message_id"] = reply.object_id
        ids, session = send(reply, get_object_tree(reply), 1.0)
        push_objects(
            get_all_nested_objects(reply),
            lambda object_id, content: push_object(run_id, session, object_id, content),
            object_ids_to_push=ids,
        )
    assert node_id == node_id_of(name)
    assert only(grid, message_id).content["facts"]["text"] == "three"
    assert name not in trial.gate.seen()  # the connection signed off at its end


def test_a_reply_says_what_the_gate_knows_and_not_what_the_site_said(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    (message_id,) = grid.push_messages([question()])
    reply = answer_to(site.read(site.wait()))
    facts = reply.metadata.__dict__
    facts["_message_type"], facts["_group_id"], facts["_dst_node_id"] = "train", "another", 77
    site.answer(reply)
    found = only(grid, message_id).metadata
    assert (found.src_node_id, found.dst_node_id) == (site.node_id, SERVER_NODE_ID)
    assert (found.run_id, found.reply_to_message_id) == (run_id_of("run-1"), message_id)
    assert (found.message_type, found.group_id) == ("query", "")


def test_a_small_message_is_there_and_back_in_a_third_of_a_second(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(poll_s=5.0, recheck_s=5.0))  # so that only being woken is quick
    site = trial.site()
    took = []
    with trial.gate.grid("run-1", SITES) as grid, ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            waiting = pool.submit(site.wait)
            time.sleep(0.1)  # the call for messages is being held by now
            begin = time.perf_counter()
            (message_id,) = grid.push_messages([question()])
            site.answer(answer_to(site.read(waiting.result())))
            only(grid, message_id)
            took.append(time.perf_counter() - begin)
    assert min(took) < 0.3


def test_three_sites_send_and_receive_updates_side_by_side(trial: Trial, grid: GateGrid) -> None:
    grid.reply_limit("train", 9 * MB)
    content = weights_record(8 * MB)

    def work(name: str) -> None:
        site = trial.site(name)
        site.activate()
        message = site.read(site.wait())
        assert message.content["arrays"]["w"].data == content["arrays"]["w"].data
        site.answer(Message(weights_record(8 * MB, seed=len(name)), reply_to=message))

    with ThreadPoolExecutor(3) as pool:
        sites = [pool.submit(work, name) for name in SITES]
        asked = [Message(content, node_id_of(name), "train", ttl=60) for name in SITES]
        replies = {
            grid.names[one.metadata.src_node_id]: one for one in grid.send_and_receive(asked, timeout=30)
        }
        for done in sites:
            done.result()
    assert sorted(replies) == sorted(SITES)
    for name, reply in replies.items():
        expected = weights_record(8 * MB, seed=len(name))
        assert reply.content["arrays"]["w"] == expected["arrays"]["w"]
        assert reply.content["numbers"]["loss"] == 0.5


def test_sixty_four_megabytes_travel_both_ways_unchanged(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    grid.reply_limit("train", 65 * 2**20)
    (message_id,) = grid.push_messages([Message(weights_record(64 * 2**20), site.node_id, "train", ttl=60)])
    site.answer(Message(weights_record(64 * 2**20, seed=1), reply_to=site.read(site.wait())))
    expected = weights_record(64 * 2**20, seed=1)
    assert only(grid, message_id).content["arrays"]["w"] == expected["arrays"]["w"]


def test_the_base_that_all_sites_get_is_held_once_and_let_go_when_all_answered(
    trial: Trial, grid: GateGrid
) -> None:
    objects = trial.gate._mailbox._objects
    messages = [Message(weights_record(12 * MB), node_id_of(name), "train", ttl=60) for name in SITES]
    ids = list(grid.push_messages(messages))
    shared = len({found.object_id for found in iterate_object_tree(get_object_tree(messages[0]))}) - 1
    assert len(objects) == shared + 3  # the message itself is another for each
    for name in SITES:
        site = trial.site(name)
        site.answer(answer_to(site.read(site.wait())))
        assert len(objects) in {shared + 3, shared + 2, shared + 1, 0}
    assert len(objects) == 0
    assert len(list(grid.pull_messages(ids))) == 3


def test_an_array_that_repeats_itself_and_an_empty_one_travel_unchanged(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    grid.reply_limit("train", 40 * MB)
    (message_id,) = grid.push_messages([question(text="zeros")])
    message = site.read(site.wait())
    trial.gate._mailbox._messages[message_id].reply_limit_bytes = 40 * MB
    content = weights_record(4)
    content["arrays"]["w"].data = bytes(16 * MB)
    content["arrays"]["empty"] = type(content["arrays"]["w"])("float32", (0,), "hilum.flat", b"")
    site.answer(Message(content, reply_to=message))
    found = only(grid, message_id).content["arrays"]
    assert found["w"].data == bytes(16 * MB)
    assert found["empty"].data == b""


def test_a_call_for_messages_is_held_and_then_ends_without_one(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(poll_s=0.6))
    site = trial.site()
    begin = time.perf_counter()
    assert site.take() is None
    assert 0.5 < time.perf_counter() - begin < 2


def test_a_site_is_there_while_it_gives_signs_of_life(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(alive_s=0.5, poll_s=0.05))
    with trial.gate.grid("run-1", SITES[:2]) as grid:
        assert list(grid.get_node_ids()) == []
        ours, stranger = trial.site(SITES[0]), trial.site(SITES[2])
        ours.take()
        stranger.take()
        assert list(grid.get_node_ids()) == [ours.node_id]
        assert set(trial.gate.seen()) == {SITES[0], SITES[2]}
        time.sleep(0.6)
        assert list(grid.get_node_ids()) == []
        ours.fleet.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=ours.node, heartbeat_interval=5))
        assert list(grid.get_node_ids()) == [ours.node_id]
        ours.fleet.DeactivateNode(DeactivateNodeRequest(node_id=ours.node_id))
        assert list(grid.get_node_ids()) == []


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


def test_the_grid_sends_to_its_own_sites_only_and_each_message_once(trial: Trial) -> None:
    grid = trial.gate.grid("run-1", SITES[:1])
    with pytest.raises(ValueError, match="not a site of this run"):
        grid.push_messages([question(SITES[1])])
    message = question()
    grid.push_messages([message])
    with pytest.raises(ValueError, match="pushed before"):
        grid.push_messages([message])


def test_ids_are_stable_and_fit_flowers_integers() -> None:
    assert node_id_of("st-elsewhere") == 2109737390497456479
    assert node_id_of("st-elsewhere") != node_id_of("st-elsewher")
    assert all(
        SERVER_NODE_ID < one(f"name-{index}") < 2**63
        for one in (node_id_of, run_id_of)
        for index in range(999)
    )
    assert Node(node_id=node_id_of("x")).node_id == node_id_of("x")


def test_answers_carry_the_servers_time_and_not_its_software(trial: Trial) -> None:
    response = trial.site().post("/v1/fleet/pull-messages", PullMessagesRequest().SerializeToString())
    assert "date" in response.headers
    assert "server" not in response.headers


def test_a_port_that_is_taken_and_a_key_that_does_not_fit_say_so(trial: Trial, tmp_path: Path) -> None:
    federation = trial.federation
    files = {
        "certificate": federation.server.cert,
        "key": federation.server.key,
        "roots": federation.root,
    }
    with pytest.raises(FederationError, match="is another server running there"):
        make_server(Gate(federation), host="127.0.0.1", port=trial.thread.port, **files)
    files["key"] = trial.identities[SITES[0]].key
    with pytest.raises(FederationError, match="can't be used"):
        make_server(Gate(federation), host="127.0.0.1", port=0, **files)


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
