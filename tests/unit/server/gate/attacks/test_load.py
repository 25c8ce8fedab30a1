"""How slow a caller may be, how many there may be, and what the log says of them."""

import socket
import time
from collections.abc import Callable

import pytest
from flwr.app import Message
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import PullObjectRequest

from gate_refusals import OTHER, eventually, lines
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
    weights_record,
)
from hilum.server.gate import GateBounds, GateGrid
from hilum.server.gate.refused import RefusalLog

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
