"""Every line that explains why the link does not work, each provoked for real on loopback."""

import logging
import re
import socket
import ssl
import threading
from contextlib import contextmanager
from datetime import timedelta

import pytest

from fleet_server import FleetServer, Papers, Raw, http, identity_of, server_context
from hilum.client.link.explain import Patience, clock_line, explain
from hilum.client.link.fleet_client import CallError, FleetClient
from hilum.client.link.teller import Teller
from hilum.common.errors import ConfigError

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
PROXIES = ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def papers(tmp_path):
    return Papers(tmp_path / "federation")


def cause_at(identity, **about):
    client = FleetClient(identity)
    try:
        with pytest.raises(CallError) as failed:
            client.activate()
    finally:
        client.close()
    return explain(failed.value, identity, client.proxy, **about)


def cause_of(papers, server, **about):
    return cause_at(identity_of(papers, f"localhost:{server.port}"), **about)


@contextmanager
def listening(answer):
    """A TCP port where `answer` has each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def says(cause, code, *words, patience=Patience.SLOWLY):
    assert cause.code == code, cause
    assert cause.patience is patience
    assert "\n" not in cause.text
    for word in words:
        assert word in cause.text
    return True


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


# Its certificate.


def test_the_certificate_of_another_federation_is_final_until_the_server_was_known(papers, tmp_path):
    other = Papers(tmp_path / "other", "other federation")
    with FleetServer(papers, tls=server_context(other)) as server:
        words = ("not of this federation", "root.crt")
        says(cause_of(papers, server), "other_federation", *words, patience=Patience.NEVER)
        says(cause_of(papers, server, known=True), "other_federation", *words)


def test_a_root_of_the_same_name_is_another_federation_too(papers, tmp_path):
    other = Papers(tmp_path / "other")
    with FleetServer(papers, tls=server_context(other)) as server:
        says(cause_of(papers, server), "other_federation", patience=Patience.NEVER)


def test_a_host_that_the_certificate_does_not_name(papers):
    pair = papers.server(names=["federation.example"])
    with FleetServer(papers, tls=server_context(papers, pair)) as server:
        says(cause_of(papers, server), "other_host", "not for localhost", "hilum admin renew --host")


def test_a_sites_certificate_is_no_servers(papers):
    pair = papers.site("impostor", names=["localhost"])
    with FleetServer(papers, tls=server_context(papers, pair)) as server:
        assert cause_of(papers, server).code in {"no_server", "other_host"}


def test_a_servers_certificate_that_has_expired(papers):
    pair = papers.server(ends=-20 * MINUTE)
    with FleetServer(papers, tls=server_context(papers, pair)) as server:
        says(
            cause_of(papers, server), "server_expired", "has expired", "20 minutes apart", "hilum admin renew"
        )


def test_a_servers_certificate_that_is_not_valid_yet(papers):
    pair = papers.server(begins=20 * MINUTE)
    with FleetServer(papers, tls=server_context(papers, pair)) as server:
        cause = cause_of(papers, server)
        says(cause, "server_not_yet", "not valid yet", "20 minutes apart", "set the clock")


def test_the_dates_of_a_certificate_that_the_root_did_not_sign_are_not_repeated(papers, tmp_path):
    """Whoever answers may not put words into the log."""
    from hilum.client.link.explain import _certificate_shown

    other = Papers(tmp_path / "other")
    with FleetServer(papers, tls=server_context(other)) as server:
        assert _certificate_shown(identity_of(papers, f"localhost:{server.port}")) is None
    with FleetServer(papers) as server:
        assert _certificate_shown(identity_of(papers, f"localhost:{server.port}")) is not None


# This site's certificate.


def tls12(context):
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize("limit", [lambda context: context, tls12], ids=["TLS 1.3", "TLS 1.2"])
def test_a_server_that_does_not_accept_this_sites_certificate(papers, tmp_path, limit):
    """With TLS 1.3 the alert comes only when the site reads."""
    other = Papers(tmp_path / "other", "another")
    context = limit(server_context(papers))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*papers.server())
    context.load_verify_locations(other.root_path)
    context.verify_mode = ssl.CERT_REQUIRED
    with FleetServer(papers, tls=limit(context)) as server:
        cause = cause_of(papers, server)
    says(cause, "not_accepted", "not accept this site's certificate", "site-a is approved")


@pytest.mark.parametrize(
    ("number", "words"),
    [(44, "revoked"), (45, "has expired"), (46, "does not know"), (42, "not valid"), (48, "federation")],
)
def test_each_alert_about_the_certificate_has_its_own_words(papers, number, words):
    """RFC 8446, 6.2. A TLS server in memory sends the alert after its handshake, as one with a revocation list does."""

    def answer(connection):
        context = server_context(papers)
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        connection.recv(65536)
        connection.sendall(bytes([0x15, 3, 3, 0, 2, 2, number]))

    with listening(answer) as port:
        says(cause_at(identity_of(papers, f"localhost:{port}")), "not_accepted", words)


def test_an_expired_certificate_of_this_site_is_final_and_named_first(papers):
    identity = identity_of(papers, "localhost:1")
    cert, _ = papers.site(ends=-MINUTE)
    from cryptography import x509

    object.__setattr__(identity, "certificate", x509.load_pem_x509_certificate(cert.read_bytes()))
    words = ("this site's certificate expired", "hilum site join", "clock says")
    says(cause_at(identity), "own_expired", *words, patience=Patience.NEVER)


def test_a_certificate_that_is_not_approved_or_revoked(papers):
    with FleetServer(papers) as server:
        server.script["activate-node"] = lambda *_: http(401, b"unknown", "text/plain")
        says(
            cause_of(papers, server),
            "not_admitted",
            "401",
            "not approved yet, is revoked",
            "ask the federation",
        )


def test_a_server_that_hangs_up_without_a_word(papers):
    with FleetServer(papers) as server:
        server.script["activate-node"] = lambda *_: Raw(b"")
        words = ("without an answer", "site-a is approved", "out of date")
        says(cause_of(papers, server, known=True), "closed", *words)
        cause = cause_of(papers, server, answered=True)
        says(cause, "cut", "was cut", patience=Patience.SOON)


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


# The site's own files: told before anything is sent.


def break_root(papers, cert, key):
    papers.root_path.write_text("no certificate")


def break_certificate(papers, cert, key):
    cert.write_text("no certificate")


def swap(papers, cert, key):
    text = cert.read_text()
    cert.write_text(key.read_text())
    key.write_text(text)


def no_key(papers, cert, key):
    key.write_text("no key")


def hidden_key(papers, cert, key):
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    hidden = BestAvailableEncryption(b"secret")
    made = ec.generate_private_key(ec.SECP384R1())
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))


def other_key(papers, cert, key):
    key.write_bytes(Papers(papers.folder / "more").site()[1].read_bytes())


def open_key(papers, cert, key):
    key.chmod(0o644)


def other_root(papers, cert, key):
    papers.root_path.write_bytes(Papers(papers.folder / "more", "other").root_path.read_bytes())


def site_as_root(papers, cert, key):
    papers.root_path.write_bytes(cert.read_bytes())


@pytest.mark.parametrize(
    ("harm", "source", "words"),
    [
        (lambda papers, *_: papers.root_path.unlink(), "root.crt", "no such file"),
        (lambda _, cert, _key: cert.unlink(), "site-a.crt", "no such file"),
        (lambda _, _cert, key: key.unlink(), "site-a.key", "no such file"),
        (break_root, "root.crt", "not a certificate"),
        (site_as_root, "root.crt", "not an authority's"),
        (break_certificate, "site-a.crt", "not a certificate"),
        (swap, "site-a.crt", "not a certificate"),
        (no_key, "site-a.key", "no private key"),
        (hidden_key, "site-a.key", "password"),
        (open_key, "site-a.key", "chmod 600"),
        (other_key, "site-a.crt", "key"),
        (other_root, "site-a.crt", "root"),
    ],
)
def test_papers_that_do_not_fit_are_named(papers, harm, source, words):
    pair = papers.site()
    harm(papers, *pair)
    with pytest.raises(ConfigError, match=re.escape(source)) as refused:
        identity_of(papers, pair=pair)
    assert words in str(refused.value)


def test_papers_of_another_name_or_time_are_named(papers):
    with pytest.raises(ConfigError, match="is for 'site-b', and the site file says"):
        identity_of(papers, pair=papers.site("site-b"), name="site-a")
    with pytest.raises(ConfigError, match="expired on"):
        identity_of(papers, pair=papers.site(ends=-DAY))
    with pytest.raises(ConfigError, match="set the clock"):
        identity_of(papers, pair=papers.site(begins=20 * MINUTE))


def test_a_servers_certificate_is_no_sites(papers):
    with pytest.raises(ConfigError, match="a site's"):
        identity_of(papers, pair=papers.server())


# Clocks, and how often a line is said.


@pytest.mark.parametrize(("ahead_s", "words"), [(1200, "20 minutes ahead of"), (-1200, "20 minutes behind")])
def test_a_clock_that_is_off_is_told_in_minutes(papers, ahead_s, words):
    with FleetServer(papers, clock_s=-ahead_s) as server:
        client = FleetClient(identity_of(papers, f"localhost:{server.port}"))
        client.activate()
        client.close()
    assert f"this machine's clock is {words} the server's" in clock_line(client.clock_ahead_s)


def test_a_clock_that_is_right_is_not_mentioned(papers):
    with FleetServer(papers) as server:
        client = FleetClient(identity_of(papers, f"localhost:{server.port}"))
        client.activate()
        client.close()
    assert abs(client.clock_ahead_s) < 2
    assert clock_line(client.clock_ahead_s) is None
    assert clock_line(None) is None


def test_the_same_trouble_is_told_once_a_minute_with_a_count(caplog):
    now = [0.0]
    teller = Teller(logging.getLogger("hilum.test"), now_s=lambda: now[0])
    caplog.set_level(logging.INFO, "hilum.test")
    for second in range(0, 125, 5):
        now[0] = second
        teller.trouble("cannot reach it", f"trying again in {second} s")
    assert caplog.messages == [
        "cannot reach it; trying again in 0 s",
        "cannot reach it (11 more times since); trying again in 60 s",
        "cannot reach it (11 more times since); trying again in 120 s",
    ]
    teller.trouble("another trouble", "")
    teller.tell("connected")
    teller.trouble("another trouble", "")
    assert caplog.messages[3:] == ["another trouble", "connected", "another trouble"]
