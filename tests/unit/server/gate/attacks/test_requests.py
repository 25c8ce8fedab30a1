"""Which paths the gate serves, and how large a call may be."""

import contextlib
import logging

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest

from gate_refusals import CALLS, lines
from gate_site import FLEET, SITES, Trial, answer_to, connection, everything_from, head, question
from hilum.server.gate import GateGrid

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
