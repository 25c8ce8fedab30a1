"""What the gate refuses: strangers, other sites' things, and requests that are too large, too slow or too many."""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import Message
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from gate_certificates import Federation
from gate_site import (
    FLEET,
    SITES,
    Site,
    Trial,
    answer_to,
    connection,
    everything_from,
    head,
    one_answer,
    only,
    question,
    refusal,
    weights_record,
)
from hilum.common.wire_ids import node_id_of
from hilum.server.gate import GateBounds, GateGrid
from hilum.server.gate.refused import RefusalLog

CALLS = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "pull-object",
    "push-object",
    "confirm-message-received",
)
OTHER = SITES[1]


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


@pytest.fixture(autouse=True)
def _nothing_breaks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is tried, it is refused: nothing is logged as an error of ours."""
    yield
    assert [one.getMessage() for one in caplog.get_records("call") if one.levelno >= logging.ERROR] == []


def refused(call: Callable[..., Any], *arguments: Any) -> tuple[int, str]:
    """How a call is refused."""
    with pytest.raises(httpx.HTTPStatusError) as error:
        call(*arguments)
    return refusal(error.value)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("hilum.server.gate")]


def eventually(what: Callable[[], bool], patience_s: float = 5.0) -> bool:
    until = time.monotonic() + patience_s
    while not what() and time.monotonic() < until:
        time.sleep(0.02)
    return what()


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


# Which path.


OTHER_PATHS = (
    "/",
    "/health",
    "/docs",
    "/openapi.json",
    *(f"{FLEET}/{call}" for call in ("register-node", "unregister-node", "get-run", "get-fab")),
    *(
        f"/v1/control/{call}"
        for call in ("start-run", "list-runs", "stop-run", "list-nodes", "register-node")
    ),
    *(f"/v1/runtime/{call}" for call in ("acquire-task", "push-messages", "pull-task-input")),
    f"{FLEET}/pull-messages/",
    f"{FLEET}/pull-messages?x=1",
    f"{FLEET}/pull%2dmessages",
    f"{FLEET}/../control/start-run",
    f"{FLEET}//pull-messages",
    "/v1/runtime/../fleet/pull-messages",
    "/../../etc/passwd",
    "*",
    "http://elsewhere/v1/fleet/pull-messages",
)


def test_any_other_path_is_not_found(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    site = trial.site()
    body = PullMessagesRequest(node=site.node).SerializeToString()
    for path in OTHER_PATHS:
        with connection(site.context, trial.thread.port) as tls:
            tls.sendall(head(path, f"content-length: {len(body)}") + body)
            got = everything_from(tls)
        assert got.startswith(b"HTTP/1.1 404"), path
        assert got.endswith(b"\r\n\r\nunknown_path"), path
    assert lines(caplog) == [f"gate: refused {SITES[0]}: unknown_path"]


def test_a_call_is_a_post_and_nothing_is_upgraded(trial: Trial) -> None:
    site = trial.site()
    for request in (
        b"GET /v1/fleet/pull-messages HTTP/1.1\r\nhost: gate\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nhost: gate\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ):
        with connection(site.context, trial.thread.port) as tls:
            tls.sendall(request)
            assert everything_from(tls).startswith(b"HTTP/1.1 404")


# How large.


def test_a_body_over_the_bound_of_its_path_is_refused_unread(trial: Trial) -> None:
    site = trial.site()
    for call in CALLS:
        for length in (5 * 2**20 + 16 * 2**10 + 1, 10**19):
            with connection(site.context, trial.thread.port) as tls:
                tls.sendall(head(f"{FLEET}/{call}", f"content-length: {length}"))
                assert everything_from(tls).startswith(b"HTTP/1.1 413"), call


def test_only_an_announced_object_may_be_larger_than_a_call(trial: Trial, grid: GateGrid) -> None:
    site = trial.site()
    for call, length, status in (
        ("pull-messages", 16 * 2**10 + 1, 413),
        ("push-messages", 256 * 2**10 + 1, 413),
        ("push-object", 2**20, 403),
    ):
        with connection(site.context, trial.thread.port) as tls:
            tls.sendall(head(f"{FLEET}/{call}", f"content-length: {length}"))
            assert everything_from(tls).startswith(f"HTTP/1.1 {status}".encode())


@pytest.mark.parametrize(
    "headers",
    [(), ("transfer-encoding: chunked",), ("transfer-encoding: chunked", "content-length: 5")],
)
def test_a_body_of_unknown_length_is_refused(trial: Trial, headers: tuple[str, ...]) -> None:
    site = trial.site()
    with connection(site.context, trial.thread.port) as tls:
        tls.sendall(head(f"{FLEET}/pull-messages", *headers) + b"5\r\nhello\r\n0\r\n\r\n")
        assert everything_from(tls).startswith(b"HTTP/1.1 411")


@pytest.mark.parametrize(
    "request_head",
    [
        b"nonsense\r\n\r\n",
        head(f"{FLEET}/pull-messages", "content-length: -1"),
        head(f"{FLEET}/pull-messages", "content-length: 1", "content-length: 2"),
        head(f"{FLEET}/pull-messages", "x: " + "y" * 600_000, "content-length: 0"),
    ],
)
def test_what_is_not_http_is_refused_and_logged_once(
    trial: Trial, caplog: pytest.LogCaptureFixture, request_head: bytes
) -> None:
    site = trial.site()
    for _ in range(3):
        with connection(site.context, trial.thread.port) as tls:
            with contextlib.suppress(OSError):  # cut while the rest is still being sent
                tls.sendall(request_head)
            assert everything_from(tls)[:10] in {b"HTTP/1.1 4", b""}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"gate: refused {SITES[0]}: bad_http"
    ]


@pytest.mark.parametrize("call", CALLS)
def test_a_body_that_is_not_flowers_is_refused(trial: Trial, grid: GateGrid, call: str) -> None:
    site = trial.site()
    grid.push_messages([question()])
    site.announce(answer_to(site.read(site.wait())))  # so that the body of an object is read
    assert site.post(f"{FLEET}/{call}", b"\xff" * 50).text == "malformed"
    assert site.post(f"{FLEET}/{call}", b"").status_code in {400, 403}


# How slow.


def test_headers_that_do_not_come_are_not_waited_for(
    start: Callable[..., Trial], caplog: pytest.LogCaptureFixture
) -> None:
    trial = start(GateBounds(header_timeout_s=0.5))
    site = trial.site()
    for begin in (b"", b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost:"):
        with connection(site.context, trial.thread.port) as tls:
            started = time.perf_counter()
            tls.sendall(begin)
            assert everything_from(tls) == b""
            assert 0.3 < time.perf_counter() - started < 2
    assert lines(caplog) == [f"gate: refused {SITES[0]}: slow_headers"]


def test_headers_that_trickle_are_cut_on_a_connection_that_served_before(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(header_timeout_s=0.5))
    site = trial.site()
    body = SendNodeHeartbeatRequest(node=site.node).SerializeToString()
    request = head(f"{FLEET}/send-node-heartbeat", f"content-length: {len(body)}") + body
    with connection(site.context, trial.thread.port) as tls:
        for _ in range(2):
            tls.sendall(request)
            assert one_answer(tls).startswith(b"HTTP/1.1 200")
            time.sleep(0.7)  # a connection may rest longer than headers may take
        began = time.perf_counter()
        tls.settimeout(0.05)
        got = None
        for byte in request:
            tls.sendall(bytes([byte]))
            try:
                got = tls.recv(1000)
                break
            except TimeoutError:
                continue
            except OSError:
                got = b""
                break
        assert got == b""
        assert time.perf_counter() - began < 2


@pytest.mark.parametrize(("pause_s", "rate"), [(0.05, 10_000), (5.0, 10)])
def test_a_body_that_trickles_or_stops_is_given_up(
    start: Callable[..., Trial], pause_s: float, rate: int
) -> None:
    trial = start(GateBounds(header_timeout_s=0.5, min_rate_bytes_s=rate))
    site = trial.site()
    with connection(site.context, trial.thread.port) as tls:
        tls.settimeout(pause_s)
        tls.sendall(head(f"{FLEET}/push-messages", "content-length: 1000"))
        began = time.perf_counter()
        got = b""
        while not got:
            try:
                tls.sendall(b"x")
                got = tls.recv(1000)
            except TimeoutError:
                continue
        assert got.startswith(b"HTTP/1.1 408")
        assert time.perf_counter() - began < 2


def test_an_answer_that_is_not_taken_is_given_up(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(header_timeout_s=0.5, transfers_per_site=2))
    with trial.gate.grid("run-1", SITES) as grid:
        site = trial.site()
        grid.push_messages([Message(weights_record(10**7), site.node_id, "train", ttl=60)])
        taken = site.wait()
        record = next(child for child in taken.tree.children[0].children if child.children)
        chunk = record.children[0].children[0].object_id
        body = PullObjectRequest(
            node=site.node, run_id=taken.message.metadata.run_id, object_id=chunk
        ).SerializeToString()
        request = head(f"{FLEET}/pull-object", f"content-length: {len(body)}") + body
        slots = trial.gate._transfers[SITES[0]]
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plain.connect(("127.0.0.1", trial.thread.port))
            with site.context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
                tls.sendall(request)
                assert eventually(lambda: slots._value == 1)
                assert eventually(lambda: slots._value == 2)
                assert len(everything_from(tls)) < 5 * 2**20


def test_a_stranger_that_says_nothing_is_cut(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(handshake_timeout_s=0.5))
    with socket.create_connection(("127.0.0.1", trial.thread.port), timeout=10) as plain:
        began = time.perf_counter()
        assert plain.recv(100) == b""
        assert time.perf_counter() - began < 3


# How many.


def test_one_certificate_holds_so_many_connections_and_the_newest_stay(
    start: Callable[..., Trial], caplog: pytest.LogCaptureFixture
) -> None:
    trial = start(GateBounds(connections_per_site=3))
    site = trial.site()
    body = SendNodeHeartbeatRequest(node=site.node).SerializeToString()
    request = head(f"{FLEET}/send-node-heartbeat", f"content-length: {len(body)}") + body
    opened = []
    for _ in range(6):
        plain = socket.create_connection(("127.0.0.1", trial.thread.port), timeout=10)
        opened.append(site.context.wrap_socket(plain, server_hostname="127.0.0.1"))
        time.sleep(0.05)
    for tls in opened[:3]:
        assert everything_from(tls) == b""
    for tls in opened[3:]:
        tls.sendall(request)
        assert one_answer(tls).startswith(b"HTTP/1.1 200")
    other = trial.site(OTHER)
    assert other.take() is None
    for tls in opened:
        tls.close()
    assert lines(caplog) == [f"gate: refused {SITES[0]}: too_many_connections"]


def test_strangers_can_not_take_all_file_descriptors_nor_throw_a_site_out(
    start: Callable[..., Trial], caplog: pytest.LogCaptureFixture
) -> None:
    trial = start(GateBounds(connections=10, handshake_timeout_s=1.0, poll_s=0.1))
    site = trial.site()
    site.take()
    address = ("127.0.0.1", trial.thread.port)
    strangers = [socket.create_connection(address, timeout=10) for _ in range(30)]
    assert eventually(lambda: "gate: refused stranger: too_many_connections" in lines(caplog))
    assert len(trial.thread.server._listener._open) <= 10
    site.take()  # on the connection that it has
    for stranger in strangers:
        assert stranger.recv(100) == b""
        stranger.close()
    assert trial.site(OTHER).take() is None  # room again


def test_a_stranger_of_one_address_keeps_no_site_out(start: Callable[..., Trial]) -> None:
    trial = start(GateBounds(connections=40, poll_s=0.1))
    listener = trial.thread.server._listener
    strangers = []
    for _ in range(60):
        stranger = socket.socket()
        stranger.bind(("127.0.0.2", 0))
        stranger.settimeout(10)
        stranger.connect(("127.0.0.1", trial.thread.port))
        strangers.append(stranger)
    assert eventually(lambda: len(listener._open) == 5)
    assert trial.site().take() is None
    for stranger in strangers:
        stranger.close()


# What the log says.


def test_the_log_says_each_refusal_once_a_minute_and_counts_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = RefusalLog(quiet_s=0.2)
    for _ in range(5):
        log.note("a", "x")
    log.note("a", "y")
    log.note(None, "x")
    time.sleep(0.25)
    log.note("a", "x")
    assert lines(caplog) == [
        "gate: refused a: x",
        "gate: refused a: y",
        "gate: refused stranger: x",
        "gate: refused a: x (and 4 more since the last line)",
    ]


def test_a_site_that_is_busy_with_one_attack_is_still_served(trial: Trial, grid: GateGrid) -> None:
    site: Site = trial.site()
    (message_id,) = grid.push_messages([question()])
    for _ in range(20):
        assert site.post("/v1/control/start-run", b"x").status_code == 404
    site.answer(answer_to(site.read(site.wait())))
    assert only(grid, message_id).has_content()
