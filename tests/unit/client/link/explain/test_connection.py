"""Nothing is there, something else is, or it answers otherwise than a server does."""

import socket
import ssl

import pytest

from federation_papers import Papers, identity_of, server_context
from fleet_server import FleetServer, Raw, http
from hilum.client.link.explain import Patience
from link_causes import cause_at, cause_of, listening, says

# Not there.


def test_nothing_listens(papers):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    cause = cause_at(identity_of(papers, f"localhost:{port}"))
    says(cause, "down", f"cannot reach localhost:{port} (connection refused", patience=Patience.SOON)


def test_a_name_that_no_dns_knows(papers):
    cause = cause_at(identity_of(papers, "nowhere.invalid:9443"))
    says(cause, "dns", "nowhere.invalid", "DNS", patience=Patience.SOON)


def test_an_address_that_swallows_everything(papers, monkeypatch):
    monkeypatch.setattr("hilum.client.link.fleet_client._CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # the queue of the kernel is full, and drops what comes
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        cause = cause_at(identity_of(papers, f"127.0.0.1:{full.getsockname()[1]}"))
        for filler in fillers:
            filler.close()
    says(cause, "timeout", "no answer", "firewall", patience=Patience.SOON)


def test_no_way_there(papers):
    cause = cause_at(identity_of(papers, "255.255.255.255:9443"))
    says(cause, "no_route", "no way there", patience=Patience.SOON)


# Something else is there.


def test_a_port_without_tls(papers):
    with listening(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(100))) as port:
        says(cause_at(identity_of(papers, f"localhost:{port}")), "no_tls", "without TLS", "port")


def test_a_port_that_speaks_plain_http(papers):
    def answer(connection):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(answer) as port:
        says(cause_at(identity_of(papers, f"localhost:{port}")), "no_tls", "without TLS")


def test_a_port_that_hangs_up_as_tls_begins(papers):
    with listening(lambda connection: connection.recv(4096)) as port:
        cause = cause_at(identity_of(papers, f"localhost:{port}"))
    says(cause, "tls_closed", "closed the connection as TLS began", patience=Patience.SOON)


def test_a_port_that_says_nothing(papers, monkeypatch):
    monkeypatch.setattr("hilum.client.link.fleet_client._CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cause = cause_at(identity_of(papers, f"localhost:{silent.getsockname()[1]}"))
    says(cause, "tls_silent", "says nothing", patience=Patience.SOON)


def test_a_server_of_old_tls(papers):
    def answer(connection):
        connection.recv(4096)
        connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46")  # fatal alert 70, protocol version

    with listening(answer) as port:
        says(cause_at(identity_of(papers, f"localhost:{port}")), "old_tls", "TLS 1.2")


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (http(404, b"not found", "text/html"), "404"),
        (http(200, b"<html>", "text/html"), "another type"),
        (http(200, b"\xff\xff\xff"), "not a message of the protocol"),
        (http(307, Location="https://127.0.0.1/"), "307"),
        (Raw(b"220 mail.example ESMTP\r\n"), "HTTP"),
    ],
    ids=["404", "html", "no protobuf", "redirect", "smtp"],
)
def test_tls_that_is_not_a_hilum_server(papers, answer, word):
    with FleetServer(papers) as server:
        server.script["activate-node"] = lambda *_: answer
        says(cause_of(papers, server), "not_hilum", "is not a Hilum server", word, "link.server")


def test_an_answer_without_end(papers):
    with FleetServer(papers) as server:
        server.script["activate-node"] = lambda *_: http(200, bytes(10**6))
        says(cause_of(papers, server), "too_large", "without end")


# It answers, but not so.


def test_a_server_that_does_not_answer(papers, monkeypatch):
    monkeypatch.setattr("hilum.client.link.fleet_client._STEP_S", 0.2)
    with FleetServer(papers) as server:
        server.script["activate-node"] = lambda *_: Raw(b"", wait_s=1)
        says(cause_of(papers, server), "silent", "does not answer", patience=Patience.SOON)


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_busy_server(papers, status):
    with FleetServer(papers) as server:
        server.script["activate-node"] = lambda *_: http(status)
        says(cause_of(papers, server), "busy", str(status), patience=Patience.SOON)


def test_a_server_that_refuses_for_another_reason(papers):
    with FleetServer(papers) as server:
        server.script["activate-node"] = lambda *_: http(500)
        says(cause_of(papers, server), "refused", "500", "server's log")


# A proxy between the two.


def through(monkeypatch, port):
    monkeypatch.setenv("HTTPS_PROXY", f"http://name:ZZSECRET@127.0.0.1:{port}")


def test_a_proxy_that_is_down(papers, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    through(monkeypatch, port)
    cause = cause_at(identity_of(papers, "federation.example:9443"))
    says(cause, "proxy_down", f"the proxy 127.0.0.1:{port} of HTTPS_PROXY", "refused", patience=Patience.SOON)
    assert "ZZSECRET" not in cause.text


@pytest.mark.parametrize(
    ("answer", "code", "words", "patience"),
    [
        (b"HTTP/1.1 403 No\r\n\r\n", "proxy_refused", "allow CONNECT", Patience.SLOWLY),
        (b"HTTP/1.1 407 Login\r\n\r\n", "proxy_login", "name and a password", Patience.SLOWLY),
        (b"HTTP/1.1 502 Gone\r\n\r\n", "proxy_gateway", "can't reach federation.example", Patience.SOON),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "proxy_wrong", "as an HTTP proxy", Patience.SOON),
        (b"", "proxy_wrong", "as an HTTP proxy", Patience.SOON),
    ],
)
def test_a_proxy_that_does_not_let_through(papers, monkeypatch, answer, code, words, patience):
    def serve(connection):
        connection.recv(4096)
        connection.sendall(answer)

    with listening(serve) as port:
        through(monkeypatch, port)
        cause = cause_at(identity_of(papers, "federation.example:9443"))
    says(cause, code, words, patience=patience)
    assert "ZZSECRET" not in cause.text


def test_a_proxy_that_opens_tls_is_named_as_a_cause(papers, monkeypatch, tmp_path):
    other = server_context(Papers(tmp_path / "other"), None)
    other.verify_mode = ssl.CERT_NONE

    def serve(connection):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            other.wrap_socket(connection, server_side=True).recv(1)
        except OSError:
            return

    with listening(serve) as port:
        through(monkeypatch, port)
        cause = cause_at(identity_of(papers, "federation.example:9443"), known=True)
    says(cause, "other_federation", "a proxy that opens TLS")
