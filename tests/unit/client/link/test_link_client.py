"""The eight calls: bounded in bytes and time whatever the server does, never sent elsewhere, and through a proxy."""

import socket
import threading
import time
import tracemalloc

import pytest
from flwr.proto import fleet_pb2, message_pb2

from federation_papers import Papers, identity_of
from fleet_server import FleetServer, Raw, http
from hilum.client.link.fleet_client import Answered, CallFailed, FleetClient, NotAServer, TooLarge
from hilum.client.link.proxies import Proxy, proxy_for
from hilum.common.errors import ConfigError

MIB = 2**20


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def papers(tmp_path):
    return Papers(tmp_path / "federation")


@pytest.fixture
def server(papers):
    with FleetServer(papers) as made:
        yield made


@pytest.fixture
def client(papers, server):
    made = FleetClient(identity_of(papers, f"localhost:{server.port}"))
    yield made
    made.close()


def test_the_client_has_the_eight_calls_and_no_other(client, server):
    node = client.activate()
    client.heartbeat(node)
    client.pull_messages(node)
    client.pull_object(node, 7, "0" * 64)
    client.confirm(node, 7, "0" * 64)
    tree = message_pb2.ObjectTree(object_id="0" * 64)
    client.push_messages(node, message_pb2.Message(), tree)
    server.script["push-object"] = lambda *_: message_pb2.PushObjectResponse(stored=True).SerializeToString()
    client.push_object(node, 7, "s", "0" * 64, b"x")
    client.deactivate(node, 1.0)
    assert len(server.calls) == 8
    assert set(server.calls) == {*PATHS, "deactivate-node"}
    public = {name for name in vars(FleetClient) if not name.startswith("_")}
    assert len(public - {"close"}) == 8


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(client, server, papers, status):
    with FleetServer(papers) as elsewhere:
        target = f"https://localhost:{elsewhere.port}/v1/fleet/activate-node"
        server.script["activate-node"] = lambda *_: http(status, Location=target)
        with pytest.raises(NotAServer, match=str(status)):
            client.activate()
        assert elsewhere.calls == []


@pytest.mark.parametrize(
    ("call", "at_most"),
    [
        (lambda client: client.activate(), 64 * 1024),
        (lambda client: client.heartbeat(1), 64 * 1024),
        (lambda client: client.pull_messages(1), MIB),
        (lambda client: client.confirm(1, 7, "0" * 64), 64 * 1024),
        (lambda client: client.push_messages(1, message_pb2.Message(), message_pb2.ObjectTree()), MIB),
        (lambda client: client.push_object(1, 7, "s", "0" * 64, b"x"), 64 * 1024),
        (lambda client: client.pull_object(1, 7, "0" * 64), 6 * MIB),
    ],
    ids=["activate", "heartbeat", "pull", "confirm", "push", "push object", "pull object"],
)
@pytest.mark.parametrize("lies", [False, True], ids=["length", "chunked"])
def test_an_answer_is_read_up_to_its_bound_and_no_further(client, server, call, at_most, lies):
    sent = [0]

    def flow():
        while True:
            yield b"10000\r\n" + bytes(65536) + b"\r\n" if lies else bytes(65536)
            sent[0] += 65536

    def endless(*_):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/protobuf\r\n"
        head += b"Transfer-Encoding: chunked\r\n\r\n" if lies else b"Content-Length: 4000000000\r\n\r\n"
        return Raw(head, more=flow())

    server.script.update(dict.fromkeys(PATHS, endless))
    tracemalloc.start()
    with pytest.raises(TooLarge):
        call(client)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * at_most + 2 * MIB  # the answer, its growth, and the server in this same process
    assert sent[0] < at_most + 8 * MIB  # what the kernel's buffers took


PATHS = (
    "activate-node",
    "send-node-heartbeat",
    "pull-messages",
    "confirm-message-received",
    "push-messages",
    "push-object",
    "pull-object",
)


def test_an_object_of_flowers_size_comes_through(client, server):
    content = bytes(5 * MIB + 100)
    server.objects["0" * 64] = content
    assert client.pull_object(1, 7, "0" * 64).object_content == content


def test_a_compressed_answer_is_not_unpacked(client, server):
    """A bomb of 10 kB would be 10 MB."""
    import gzip

    bomb = gzip.compress(bytes(10 * MIB))
    server.script["activate-node"] = lambda *_: http(200, bomb, **{"Content-Encoding": "gzip"})
    with pytest.raises(NotAServer):
        client.activate()


@pytest.mark.parametrize("part", ["head", "body", "nothing"])
def test_a_server_that_trickles_is_left_at_the_deadline_of_the_whole_call(client, server, monkeypatch, part):
    monkeypatch.setitem(FleetClient._call.__kwdefaults__, "deadline_s", 0.6)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/protobuf\r\nContent-Length: 50000\r\n"

    def trickle():
        while True:
            time.sleep(0.05 if part != "nothing" else 3.0)
            yield b"x"

    server.script["activate-node"] = lambda *_: Raw(
        head + (b"\r\n" if part == "body" else b"X-More: "), more=trickle()
    )
    began = time.monotonic()
    with pytest.raises(CallFailed):
        client.activate()
    assert time.monotonic() - began < 10


def test_a_call_says_that_it_moves(client, server):
    moves = []
    server.objects["0" * 64] = bytes(5 * MIB)
    client.pull_object(1, 7, "0" * 64, lambda: moves.append(time.monotonic()))
    assert len(moves) > 20
    before = len(moves)
    client.heartbeat(1)
    assert len(moves) == before  # another call, another thread's perhaps, says nothing


def test_a_connection_that_was_closed_while_it_was_idle_is_no_failure(client, server):
    client.activate()
    for connection in list(server.open):
        connection.shutdown(socket.SHUT_RDWR)
    client.activate()


def test_a_connection_that_is_closed_as_the_next_request_comes_is_no_failure(client, server):
    """Both ends may close at the same moment; every call may be made twice."""
    client.activate()
    closed = []

    def close_once(*_):
        closed.append(1)
        return Raw(b"") if len(closed) == 1 else None

    server.script["send-node-heartbeat"] = close_once
    assert client.heartbeat(server.node_id)
    assert len(closed) == 2


def test_a_refusal_has_its_status(client, server):
    server.script["activate-node"] = lambda *_: http(403, b"not_yours", "text/plain")
    with pytest.raises(Answered) as refused:
        client.activate()
    assert refused.value.status == 403


def test_messages_without_their_trees_are_not_believed(client, server):
    odd = fleet_pb2.PullMessagesResponse(messages_list=[message_pb2.Message()])
    server.script["pull-messages"] = lambda *_: odd.SerializeToString()
    with pytest.raises(NotAServer):
        client.pull_messages(1)


# The way out.


class ConnectProxy:
    """A proxy that lets everything through, to a fixed place."""

    def __init__(self, port: int) -> None:
        self.asked, self.target = [], port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            self.asked.append(head)
            server = socket.create_connection(("127.0.0.1", self.target))
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one, other):
        try:
            while piece := one.recv(65536):
                other.sendall(piece)
        except OSError:
            pass
        finally:
            other.close()


def test_the_way_leads_through_a_proxy_and_is_end_to_end(papers, monkeypatch):
    from federation_papers import server_context

    pair = papers.server(names=["federation.example"])
    with FleetServer(papers, tls=server_context(papers, pair)) as server:
        proxy = ConnectProxy(server.port)
        monkeypatch.setenv("HTTPS_PROXY", f"http://na%20me:se%3Acret@127.0.0.1:{proxy.port}")
        client = FleetClient(identity_of(papers, "federation.example:9443"))
        assert client.activate() == server.node_id
        client.close()
        proxy.listener.close()
    [asked] = proxy.asked
    assert asked.startswith(b"CONNECT federation.example:9443 HTTP/1.1\r\n")
    assert b"bmEgbWU6c2U6Y3JldA==" in asked  # na me:se:cret
    assert "cret" not in repr(client.proxy)


def test_a_server_on_this_machine_is_reached_without_the_proxy(papers, server, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    client = FleetClient(identity_of(papers, f"localhost:{server.port}"))
    assert client.activate() == server.node_id
    client.close()


@pytest.mark.parametrize(
    ("host", "environment", "found"),
    [
        ("a.example", {}, None),
        ("a.example", {"HTTPS_PROXY": "http://proxy.lan:8080"}, Proxy("proxy.lan", 8080)),
        ("a.example", {"https_proxy": "proxy.lan:8080"}, Proxy("proxy.lan", 8080)),
        ("a.example", {"HTTPS_PROXY": "http://proxy.lan"}, Proxy("proxy.lan", 3128)),
        ("a.example", {"HTTP_PROXY": "http://proxy.lan:8080", "ALL_PROXY": "x"}, None),
        ("a.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "b.example, .example"}, None),
        ("a.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example"}, None),
        ("a.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("a.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "ample,b.example"}, Proxy("p", 1)),
        ("A.Example", {"HTTPS_PROXY": "http://p:1", "no_proxy": "a.example:9443"}, None),
        ("10.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("11.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, Proxy("p", 1)),
        ("127.0.0.2", {"HTTPS_PROXY": "http://p:1"}, None),
        ("::1", {"HTTPS_PROXY": "http://p:1"}, None),
        ("localhost", {"HTTPS_PROXY": "http://p:1"}, None),
    ],
)
def test_which_proxy(host, environment, found):
    assert proxy_for(host, environment) == found


@pytest.mark.parametrize("address", ["socks5://p:1", "http://", "http://p:port", "ftp://p"])
def test_an_address_that_is_no_proxys(address):
    with pytest.raises(ConfigError, match="HTTPS_PROXY"):
        proxy_for("a.example", {"HTTPS_PROXY": address})
