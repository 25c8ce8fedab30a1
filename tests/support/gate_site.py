"""A site at the gate, for tests: Flower's own client and helpers with a client certificate, and what an attacker would send."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient

from gate_certificates import Federation, Identity
from hilum.common.wire_ids import node_id_of
from hilum.server.gate import Gate, GateBounds, GateGrid, GateThread, make_server

SITES = ("st-elsewhere", "seattle-grace", "princeton")
FLEET = "/v1/fleet"


def weights_record(size_bytes: int, seed: int = 0) -> RecordDict:
    """A record with one array of random bytes, which no two chunks share."""
    data = np.random.default_rng(seed).bytes(size_bytes)
    return RecordDict(
        {
            "arrays": ArrayRecord({"w": Array("float32", (size_bytes // 4,), "hilum.flat", data)}),
            "facts": ConfigRecord({"round": 1}),
            "numbers": MetricRecord({"loss": 0.5}),
        }
    )


@dataclass
class Taken:
    """A message that a site was handed, before its content."""

    message: Message
    tree: ObjectTree


class Site:
    """One site with Flower's client.

    Args:
        federation: Whose root it trusts.
        identity: Its certificate and key.
        name: Its name.
        port: The gate's.
    """

    def __init__(self, federation: Federation, identity: Identity, name: str, port: int) -> None:
        self.identity, self.port = identity, port
        self.node_id = node_id_of(name)
        self.node = Node(node_id=self.node_id)
        self.context = federation.client_context(identity)
        self.fleet = FleetHttpClient(f"https://127.0.0.1:{port}", verify=self.context)

    def close(self) -> None:
        self.fleet.close()

    def activate(self) -> int:
        key = public_key_to_bytes(self.identity.private_key.public_key())
        return self.fleet.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=30)).node_id

    def take(self) -> Taken | None:
        """Pull a message if there is one."""
        response = self.fleet.PullMessages(PullMessagesRequest(node=self.node))
        if not response.messages_list:
            return None
        return Taken(message_from_proto(response.messages_list[0]), response.message_object_trees[0])

    def wait(self, patience_s: float = 10.0) -> Taken:
        """Pull until there is a message."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            if taken := self.take():
                return taken
        raise TimeoutError("no message")

    def read(self, taken: Taken) -> Message:
        """Pull the content, as Flower's own supernode does."""
        run_id = taken.message.metadata.run_id
        message = pull_and_inflate_object_from_tree(
            taken.tree,
            make_pull_object_fn_protobuf(self.fleet.PullObject, self.node, run_id),
            make_confirm_message_received_fn_protobuf(self.fleet.ConfirmMessageReceived, self.node, run_id),
            return_type=Message,
        )
        message.metadata.__dict__["_message_id"] = taken.tree.object_id
        return message

    def announce(self, reply: Message, tree: ObjectTree | None = None) -> PushMessagesResponse:
        """Say that a reply comes, and of which objects."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        return self.fleet.PushMessages(
            PushMessagesRequest(
                node=self.node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply) if tree is None else tree],
                clientapp_runtime_list=[1.0],
            )
        )

    def send(self, reply: Message, announced: PushMessagesResponse, at_a_time: int = 2) -> None:
        """Push the objects that are missing."""
        push_objects(
            get_all_nested_objects(reply),
            make_push_object_fn_protobuf(
                self.fleet.PushObject, self.node, reply.metadata.run_id, announced.session_id
            ),
            object_ids_to_push=set(announced.objects_to_push),
            max_concurrent_pushes=at_a_time,
        )

    def answer(self, reply: Message) -> None:
        self.send(reply, self.announce(reply))

    def post(self, call: str, body: bytes, **headers: str) -> httpx.Response:
        """POST whatever on a connection of its own."""
        with httpx.Client(verify=self.context) as client:
            return client.post(f"https://127.0.0.1:{self.port}{call}", content=body, headers=headers)


class Trial:
    """A gate that runs, and its sites.

    Args:
        folder: Where the certificates go.
        bounds: The gate's; a call for messages is held for less than usual, so that tests are quick.
    """

    def __init__(self, folder: Path, bounds: GateBounds | None = None) -> None:
        self.federation = Federation(folder)
        self.identities = {name: self.federation.site(name) for name in SITES}
        self.gate = Gate(self.federation, bounds or GateBounds(poll_s=0.3))
        server = self.federation.server
        self.thread = GateThread(
            make_server(
                self.gate,
                host="127.0.0.1",
                port=0,
                certificate=server.cert,
                key=server.key,
                roots=self.federation.root,
            )
        )
        self.sites: list[Site] = []

    def start(self) -> Self:
        self.thread.__enter__()
        return self

    def stop(self) -> None:
        for site in self.sites:
            site.close()
        self.thread.__exit__(None, None, None)

    def site(self, name: str = SITES[0]) -> Site:
        site = Site(self.federation, self.identities[name], name, self.thread.port)
        self.sites.append(site)
        return site


def question(name: str = SITES[0], text: str = "hello", ttl: float = 60.0) -> Message:
    """A small message to a site."""
    return Message(RecordDict({"facts": ConfigRecord({"text": text})}), node_id_of(name), "query", ttl=ttl)


def answer_to(message: Message, text: str = "yes") -> Message:
    """A small reply."""
    return Message(RecordDict({"facts": ConfigRecord({"text": text})}), reply_to=message)


def only(grid: GateGrid, message_id: str, patience_s: float = 10.0) -> Message:
    """The one reply to a message."""
    grid.wait([message_id], patience_s)
    (reply,) = grid.pull_messages([message_id])
    return reply


def refusal(error: httpx.HTTPStatusError) -> tuple[int, str]:
    """The status and code of a refusal."""
    return error.response.status_code, error.response.text


@contextmanager
def connection(context: ssl.SSLContext, port: int) -> Iterator[ssl.SSLSocket]:
    """A bare TLS connection."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        yield tls


def everything_from(tls: ssl.SSLSocket) -> bytes:
    """Read until the other end closes."""
    got = b""
    try:
        while piece := tls.recv(65536):
            got += piece
    except (ConnectionError, ssl.SSLError):
        pass  # a closed connection is what the tests look for
    return got


def one_answer(tls: ssl.SSLSocket) -> bytes:
    """Read one answer, and leave the connection open."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += tls.recv(65536)
    length = int(got.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(got.split(b"\r\n\r\n", 1)[1]) < length:
        got += tls.recv(65536)
    return got


def head(call: str, *headers: str) -> bytes:
    """The head of a POST."""
    return "\r\n".join([f"POST {call} HTTP/1.1", "host: gate", *headers, "", ""]).encode()
