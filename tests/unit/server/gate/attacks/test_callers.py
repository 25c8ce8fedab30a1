"""Who calls the gate, and whose what it asks for is."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from gate_certificates import Federation
from gate_refusals import CALLS, OTHER, eventually, lines, refused
from gate_site import (
    FLEET,
    SITES,
    Trial,
    answer_to,
    connection,
    everything_from,
    head,
    one_answer,
    only,
    question,
)
from hilum.common.wire_ids import node_id_of
from hilum.server.gate import GateBounds, GateGrid

# Who calls.


def certificate_of(kind: str, trial: Trial, folder: Path) -> ssl.SSLContext:
    if kind == "none":
        return trial.federation.client_context(None)
    identity = trial.federation.server if kind == "the server's" else Federation(folder).site(SITES[0])
    return trial.federation.client_context(identity)


@pytest.mark.parametrize("kind", ["none", "the server's", "another federation's"])
def test_whoever_has_no_certificate_of_a_site_gets_no_http_at_all(
    trial: Trial, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    context = certificate_of(kind, trial, tmp_path / "another")
    with connection(context, trial.thread.port) as tls:
        tls.sendall(head(f"{FLEET}/pull-messages", "content-length: 0"))
        assert everything_from(tls) == b""
    assert eventually(lambda: lines(caplog) == ["gate: refused stranger: no_certificate"])
    assert trial.gate.seen() == {}


def test_plain_http_is_not_spoken(trial: Trial) -> None:
    with socket.create_connection(("127.0.0.1", trial.thread.port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: gate\r\n\r\n")
        assert b"HTTP" not in plain.recv(1000)


def test_a_site_that_is_revoked_is_refused_on_the_connection_that_it_has(
    trial: Trial, caplog: pytest.LogCaptureFixture
) -> None:
    site = trial.site()
    body = SendNodeHeartbeatRequest(node=site.node).SerializeToString()
    request = head(f"{FLEET}/send-node-heartbeat", f"content-length: {len(body)}") + body
    with connection(site.context, trial.thread.port) as tls:
        tls.sendall(request)
        assert one_answer(tls).startswith(b"HTTP/1.1 200")
        trial.federation.revoke(site.identity)
        seen = trial.gate.seen()[SITES[0]]
        tls.sendall(request)
        got = everything_from(tls)  # returns because the gate closes
    assert got.startswith(b"HTTP/1.1 401")
    assert got.endswith(b"unknown_certificate")
    assert lines(caplog) == ["gate: refused stranger: unknown_certificate"]
    assert trial.gate.seen()[SITES[0]] >= seen  # what is refused is not a sign of life


def test_a_site_that_is_revoked_while_its_call_is_held_gets_no_message(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(poll_s=10.0, recheck_s=0.1))
    with trial.gate.grid("run-1", SITES) as grid:
        site = trial.site()
        outcome: list[tuple[int, str]] = []
        held = threading.Thread(target=lambda: outcome.append(refused(site.take)))
        held.start()
        time.sleep(0.3)
        trial.federation.revoke(site.identity)
        grid.push_messages([question()])
        begin = time.perf_counter()
        held.join()
    assert outcome == [(401, "unknown_certificate")]
    assert time.perf_counter() - begin < 1.0


def test_a_site_that_is_revoked_while_it_sends_a_body_is_refused(trial: Trial) -> None:
    site = trial.site()
    body = SendNodeHeartbeatRequest(node=site.node).SerializeToString()
    with connection(site.context, trial.thread.port) as tls:
        tls.sendall(head(f"{FLEET}/send-node-heartbeat", f"content-length: {len(body)}") + body[:3])
        time.sleep(0.2)
        trial.federation.revoke(site.identity)
        tls.sendall(body[3:])
        assert everything_from(tls).startswith(b"HTTP/1.1 401")


def test_a_site_activates_with_the_key_of_its_certificate_only(trial: Trial) -> None:
    site = trial.site()
    other = public_key_to_bytes(trial.identities[OTHER].private_key.public_key())
    assert refused(site.fleet.ActivateNode, ActivateNodeRequest(public_key=other)) == (403, "other_key")
    assert site.activate() == site.node_id


# Whose it is.


@pytest.mark.parametrize("call", [call for call in CALLS if call != "activate-node"])
def test_another_sites_node_id_is_refused_in_every_call(
    trial: Trial, grid: GateGrid, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    site, other = trial.site(), Node(node_id=node_id_of(OTHER))
    grid.push_messages([question()])
    taken = site.wait()
    site.announce(answer_to(site.read(taken)))  # so that nothing but the node id is wrong
    ours = {"run_id": taken.message.metadata.run_id}
    requests = {
        "deactivate-node": DeactivateNodeRequest(node_id=other.node_id),
        "send-node-heartbeat": SendNodeHeartbeatRequest(node=other, heartbeat_interval=30),
        "pull-messages": PullMessagesRequest(node=other),
        "push-messages": PushMessagesRequest(
            node=other, messages_list=[_proto(taken)], message_object_trees=[taken.tree]
        ),
        "pull-object": PullObjectRequest(node=other, object_id=taken.tree.object_id, **ours),
        "push-object": PushObjectRequest(node=other, object_id=taken.tree.object_id, **ours),
        "confirm-message-received": ConfirmMessageReceivedRequest(
            node=other, message_object_id=taken.tree.object_id, **ours
        ),
    }
    response = site.post(f"{FLEET}/{call}", requests[call].SerializeToString())
    assert (response.status_code, response.text) == (403, "not_yours")
    assert lines(caplog) == [f"gate: refused {SITES[0]}: not_yours"]


def _proto(taken: Any) -> Any:
    from flwr.common.serde import message_to_proto

    return message_to_proto(taken.message)


def test_a_reply_in_another_nodes_name_or_of_another_run_is_refused(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    grid.push_messages([question()])
    message = site.read(site.wait())
    for fact, value in (
        ("_src_node_id", node_id_of(OTHER)),
        ("_run_id", 5),
        ("_reply_to_message_id", "0" * 64),
    ):
        reply = answer_to(message)
        reply.metadata.__dict__[fact] = value
        assert refused(site.announce, reply) == (403, "not_yours")
    site.answer(answer_to(message))


def test_messages_and_objects_of_another_site_are_out_of_reach(trial: Trial, grid: GateGrid) -> None:
    thief, owner = trial.site(SITES[0]), trial.site(OTHER)
    (message_id,) = grid.push_messages([question(OTHER, "for one site's eyes")])
    assert thief.take() is None
    taken = owner.wait()
    message = owner.read(taken)
    run_id = message.metadata.run_id
    for child in (taken.tree, taken.tree.children[0]):
        asking = PullObjectRequest(node=thief.node, run_id=run_id, object_id=child.object_id)
        assert refused(thief.fleet.PullObject, asking) == (403, "not_yours")
    confirming = ConfirmMessageReceivedRequest(node=thief.node, run_id=run_id, message_object_id=message_id)
    assert refused(thief.fleet.ConfirmMessageReceived, confirming) == (403, "not_yours")
    other_run = PullObjectRequest(node=owner.node, run_id=run_id + 2, object_id=message_id)
    assert refused(owner.fleet.PullObject, other_run) == (403, "not_yours")
    stolen = answer_to(message, "poison")
    stolen.metadata.__dict__["_src_node_id"] = thief.node_id
    assert refused(thief.announce, stolen) == (403, "not_yours")
    announced = owner.announce(answer_to(message))
    assert refused(thief.send, answer_to(message), announced) == (403, "not_announced")
    owner.answer(answer_to(message, "honest"))
    assert only(grid, message_id).content["facts"]["text"] == "honest"


def test_a_message_is_out_of_reach_before_it_is_delivered(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    site.take()
    message = question()
    grid.push_messages([message])
    asking = PullObjectRequest(
        node=site.node, run_id=message.metadata.run_id, object_id=message.metadata.message_id
    )
    assert refused(site.fleet.PullObject, asking) == (403, "not_yours")
    assert refused(site.announce, answer_to(message)) == (403, "not_yours")


def test_objects_are_taken_for_an_announced_reply_only(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    grid.push_messages([question()])
    message = site.read(site.wait())
    pushing = PushObjectRequest(node=site.node, run_id=message.metadata.run_id, object_id="0" * 64)
    assert refused(site.fleet.PushObject, pushing) == (403, "not_announced")
    site.announce(answer_to(message))
    assert refused(site.fleet.PushObject, pushing) == (403, "not_announced")
    reply = answer_to(message)
    announced = site.announce(reply)
    reply.metadata.__dict__["_run_id"] = 5
    assert refused(site.send, reply, announced) == (403, "not_yours")


def test_a_second_and_different_reply_is_refused(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    (message_id,) = grid.push_messages([question()])
    message = site.read(site.wait())
    site.answer(answer_to(message, "first"))
    assert refused(site.announce, answer_to(message, "second")) == (409, "answered")
    assert only(grid, message_id).content["facts"]["text"] == "first"
    assert refused(site.announce, answer_to(message, "third")) == (409, "answered")
    assert list(grid.pull_messages([message_id])) == []
