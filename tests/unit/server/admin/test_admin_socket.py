"""The admin's socket: its owner's alone, bounded, and deaf to what is not a call."""

import asyncio
import json
import os
import socket
import stat
import threading
import time

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hilum.common.errors import ConfigError, FederationError, RunError
from hilum.common.signing import SignedStudy, sign_study
from hilum.server.admin import plane
from hilum.server.admin.client import AdminClient, NoAnswerError, NoServerError
from hilum.server.admin.plane import MAX_BODY_BYTES, listen, make_plane, plane_server
from hilum.server.admin.queue import RunQueue
from hilum.server.admin.worker import RunWorker

KEY = Ed25519PrivateKey.generate()


class Nobody:
    def close(self):
        pass


def run_study(_grid, order, _signed, folder, stop):
    if order.run == "fails":
        raise FederationError("0 of 3 sites came online")
    while not stop.wait(0.02):
        if (folder.parent / "go").exists():
            return
    raise FederationError("the run was stopped")


class Running:
    """A socket with a queue and a worker behind it, in threads."""

    def __init__(self, folder):
        self.path = folder / "admin.sock"
        (folder / "runs").mkdir(parents=True)
        self.queue = RunQueue(folder / "runs.sqlite")
        self.worker = RunWorker(
            self.queue, folder / "runs", KEY.public_key(), lambda _run, _sites: Nobody(), run_study
        )
        self.reloaded = 0
        app = make_plane(self.queue, self.worker, folder / "runs", lambda: {"site-0": 1.5}, self.reload)
        self.server = plane_server(app)
        self.socket = listen(self.path)
        self.threads = [
            threading.Thread(target=self.worker.work, daemon=True),
            threading.Thread(target=lambda: asyncio.run(self.server.serve([self.socket])), daemon=True),
        ]
        for thread in self.threads:
            thread.start()
        self.client = AdminClient(self.path)

    def reload(self):
        self.reloaded += 1

    def end(self):
        self.worker.end()
        self.server.should_exit = True
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()
        self.queue.close()
        self.socket.close()


@pytest.fixture
def running(tmp_path):
    made = Running(tmp_path / "federation")
    yield made
    made.end()


@pytest.fixture
def signed(make_study):
    def run(name, key=KEY):
        sites = ["site-0", "site-1", "site-2"]
        return sign_study(make_study(), run=name, sites=sites, days=1, now=time.time(), key=key)

    return run


def test_the_socket_is_its_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        made = listen(tmp_path / "admin.sock")
        assert os.umask(0) == 0  # it is put back
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "admin.sock").stat().st_mode) == 0o600
    made.close()


def test_a_socket_that_a_killed_server_left_is_replaced(tmp_path):
    listen(tmp_path / "admin.sock").close()
    made = listen(tmp_path / "admin.sock")
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(tmp_path / "admin.sock"))
    made.close()


def test_a_long_path_is_no_hindrance(tmp_path):
    made = Running(tmp_path / ("a" * 100) / ("b" * 100))
    try:
        assert made.client.seen() == {"site-0": 1.5}
    finally:
        made.end()


def test_another_user_is_turned_away_even_with_the_socket_open_to_all(running, monkeypatch, caplog):
    monkeypatch.setattr(plane.os, "geteuid", lambda: 12345)  # the server's own user is then another
    monkeypatch.setattr(plane, "ROOT", 12346)
    with pytest.raises(NoAnswerError):
        running.client.seen()
    assert [record.getMessage() for record in caplog.records] == [
        f"the admin socket: refused user {os.getuid()}"
    ]
    monkeypatch.undo()
    assert running.client.seen() == {"site-0": 1.5}


def test_a_study_is_submitted_shown_waited_for_and_stopped(running, signed, tmp_path):
    report = running.client.submit(signed("a"), resume=False)
    assert report == {"run": "a", "sites": ["site-0", "site-1", "site-2"], "state": "queued"}
    running.client.submit(signed("b"), resume=False)
    assert [(run["run"], run["rounds"]) for run in running.client.runs()] == [("a", 2), ("b", 2)]
    assert running.client.stop("b") == {"run": "b", "state": "stopped", "idle": True}
    with pytest.raises(RunError, match="is not running; it is stopped"):
        running.client.stop("b")
    with pytest.raises(FederationError, match="run b was stopped"):
        running.client.wait("b")
    (tmp_path / "federation" / "runs" / "go").touch()
    running.client.wait("a", poll_s=0.02)


def test_waiting_for_a_run_that_fails_gives_its_reason(running, signed):
    running.client.submit(signed("fails"), resume=False)
    with pytest.raises(FederationError, match="run fails failed: 0 of 3 sites came online"):
        running.client.wait("fails", poll_s=0.02)


def test_errors_keep_their_kind_on_the_way(running, signed):
    with pytest.raises(ConfigError, match="signed study: the signature is not the pinned admin key's"):
        running.client.submit(signed("a", key=Ed25519PrivateKey.generate()), resume=False)
    with pytest.raises(RunError, match="no run a to resume"):
        running.client.submit(signed("a"), resume=True)
    with pytest.raises(RunError, match="there is no run nothing"):
        running.client.stop("nothing")
    with pytest.raises(ConfigError, match="too long"):
        running.client.submit(SignedStudy(b"x" * 70_000, b"y" * 64), resume=False)


def test_a_renewed_certificate_is_taken_up(running):
    running.client.take_up_certificate()
    assert running.reloaded == 1


def test_where_no_server_runs_the_client_says_so(tmp_path):
    with pytest.raises(NoServerError, match="hilum admin serve"):
        AdminClient(tmp_path / "admin.sock").runs()
    listen(tmp_path / "admin.sock").close()
    with pytest.raises(NoServerError, match="hilum admin serve"):
        AdminClient(tmp_path / "admin.sock").runs()


def test_no_proxy_of_the_environment_is_asked(running, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert running.client.seen() == {"site-0": 1.5}


def raw(running, content):
    """What comes back for some bytes on the socket."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(5)
        one.connect(str(running.path))
        answer = b""
        try:
            one.sendall(content)
            one.shutdown(socket.SHUT_WR)
            while piece := one.recv(65536):
                answer += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        os.urandom(10_000),
        b"GET " + b"/" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /runs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /runs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n{}",
        b"POST /runs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /runs/%2e%2e%2f%2e%2e HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_bytes_that_are_no_call_hurt_nobody(running, content):
    answer = raw(running, content)
    assert not answer.startswith(b"HTTP/1.1 2")
    assert b"Traceback" not in answer
    assert running.client.runs() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 50_000,
        b'{"document": 3, "signature": "", "resume": false}',
        b'{"document": "\xff", "signature": "", "resume": false}',
        b'{"document": "not base64!", "signature": "", "resume": false}',
        b'{"document": "e30=", "signature": "e30=", "resume": "yes"}',
        b'{"document": "e30=", "signature": "e30=", "resume": false}',
    ],
)
def test_bodies_that_are_no_signed_study_are_refused_in_a_sentence(running, body):
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(running.path)), trust_env=False) as http:
        answer = http.post("http://server/runs", content=body)
    assert answer.status_code == 409
    assert set(json.loads(answer.content)) == {"kind", "message"}
    assert running.client.runs() == []


def test_a_body_is_not_read_beyond_its_bound(running):
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(running.path)), trust_env=False) as http:
        answer = http.post("http://server/runs", content=b"x" * (MAX_BODY_BYTES + 1))
    assert "at most 256 KiB" in json.loads(answer.content)["message"]


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/v1/fleet/pull-messages", "/v1/control/start-run"]
)
def test_nothing_else_is_there(running, path):
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(running.path)), trust_env=False) as http:
        assert http.get(f"http://server{path}").status_code == 404
        assert http.post(f"http://server{path}").status_code == 404


def test_a_name_that_is_a_path_is_refused(running):
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(running.path)), trust_env=False) as http:
        answer = http.post("http://server/runs/..%2Fx/stop")
    assert answer.status_code in (404, 409)
