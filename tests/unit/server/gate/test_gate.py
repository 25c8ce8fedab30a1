"""A message through the gate and back, by the calls that Flower's own SuperNode makes; and what the gate answers."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flwr.app import Message
from flwr.proto.fleet_pb2 import DeactivateNodeRequest, PullMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.fleet_http_connection import http_request_response

from gate_site import SITES, Trial, answer_to, only, question, weights_record
from hilum.common.errors import FederationError
from hilum.common.wire_ids import SERVER_NODE_ID, node_id_of, run_id_of
from hilum.server.gate import Gate, GateBounds, GateGrid, make_server

MB = 10**6


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
