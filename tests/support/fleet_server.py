"""A small server for tests of the site's link: real mutual TLS on loopback, Flower's fleet calls, and any mischief.

It speaks HTTP/1.1 with its own few lines, so that a test can send what no well-behaved library would. One thread a
connection. `script` replaces the answer to a path: it gets the server and the request's body, and gives bytes (a
protobuf body), `Raw` (sent as it is, then the connection ends) or None (the ordinary answer).
"""

import contextlib
import hashlib
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate

from flwr.app import RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from federation_papers import Papers, server_context
from hilum.common.wire_ids import node_id_of


@dataclass
class Raw:
    """Bytes to send as they are."""

    content: bytes
    wait_s: float = 0.0  # before the connection is closed
    more: Iterable[bytes] = ()  # sent as long as someone reads


def http(status: int, body: bytes = b"", kind: str = "application/protobuf", **headers: str) -> Raw:
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Length: {len(body)}",
        f"Content-Type: {kind}",
        "Connection: close",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return Raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


class FleetServer:
    """Stands for the gate. `say` puts a message into the site's box; `answers` holds what came back, by message."""

    def __init__(self, papers: Papers, site="site-a", *, tls=None, port=0, clock_s=0.0, date=True) -> None:
        self.papers, self.site, self.node_id = papers, site, node_id_of(site)
        self.clock_s, self.date = clock_s, date
        self.script, self.calls, self.received = {}, [], defaultdict(bytes)
        self.said = {}
        self.box, self.objects, self.replies, self.answers = [], {}, {}, {}
        self.confirmed, self.stored, self.pulled = [], {}, []
        self.cut_at = None  # so many objects are stored when the connection is cut inside the next one, once
        self.lock = threading.RLock()
        self.tls = tls or server_context(papers)
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.open: set[socket.socket] = set()
        self.closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        self.closing = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def say(self, content: RecordDict, kind="train", ttl=30.0, age_s=0.0) -> str:
        """Put a request into the site's box; give its id."""
        metadata = Metadata(
            run_id=7,
            message_id="",
            src_node_id=1,
            dst_node_id=self.node_id,
            reply_to_message_id="",
            group_id="",
            created_at=time.time() + self.clock_s - age_s,
            ttl=ttl,
            message_type=kind,
        )
        message = make_message(metadata, content)
        objects = {key: one.deflate() for key, one in get_all_nested_objects(message).items()}
        metadata.__dict__["_message_id"] = message.object_id
        announced = message_to_proto(remove_content_from_message(message))
        with self.lock:
            self.objects.update(objects)
            self.said[message.object_id] = (announced, get_object_tree(message))
            self.box.append(self.said[message.object_id])
        return message.object_id

    def say_again(self, message_id: str) -> None:
        """Put an earlier request into the box once more."""
        with self.lock:
            self.box.append(self.said[message_id])

    def wait(self, condition, patience_s=20.0):
        until = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < until, f"gave up; calls: {self.calls[-20:]}"
            time.sleep(0.02)

    def answer_to(self, message_id: str, patience_s=20.0) -> RecordDict:
        self.wait(lambda: message_id in self.answers, patience_s)
        return self.answers[message_id]

    def _accept(self):
        while not self.closing:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain):
        try:
            connection = self.tls.wrap_socket(plain, server_side=True)
        except (OSError, ssl.SSLError):
            plain.close()
            return
        self.open.add(connection)
        try:
            while not self.closing:
                if not self._one(connection):
                    return
        except (OSError, ValueError):
            return
        finally:
            self.open.discard(connection)
            connection.close()

    def _one(self, connection) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            if not piece:
                return False
            head += piece
        head, body = head.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        path = first.split(" ")[1].removeprefix("/v1/fleet/")
        self.calls.append(path)
        while len(body) < int(headers.get("content-length", 0)):
            piece = connection.recv(65536)
            if not piece:
                return False
            body += piece
            if path == "push-object" and len(self.stored) == self.cut_at and len(body) > 1000:
                self.cut_at = None
                return False
        self.received[path] += body
        scripted = self.script.get(path)
        answer = scripted(self, body) if scripted else None
        if answer is None:
            answer = getattr(self, path.replace("-", "_"))(body)
        if isinstance(answer, Raw):
            connection.sendall(answer.content)
            for piece in answer.more:
                connection.sendall(piece)
            time.sleep(answer.wait_s)
            return False
        when = f"Date: {formatdate(time.time() + self.clock_s, usegmt=True)}\r\n" if self.date else ""
        connection.sendall(
            f"HTTP/1.1 200 OK\r\n{when}Content-Type: application/protobuf\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
            + answer
        )
        return True

    # The eight calls.

    def activate_node(self, body):
        return fleet_pb2.ActivateNodeResponse(node_id=self.node_id).SerializeToString()

    def deactivate_node(self, body):
        return b""

    def send_node_heartbeat(self, body):
        return heartbeat_pb2.SendNodeHeartbeatResponse(success=True).SerializeToString()

    def pull_messages(self, body):
        until = time.monotonic() + 0.1
        while time.monotonic() < until and not self.box and not self.closing:
            time.sleep(0.01)
        with self.lock:
            if not self.box:
                return b""
            announced, tree = self.box.pop(0)
        return fleet_pb2.PullMessagesResponse(
            messages_list=[announced], message_object_trees=[tree]
        ).SerializeToString()

    def pull_object(self, body):
        asked = message_pb2.PullObjectRequest.FromString(body).object_id
        self.pulled.append(asked)
        content = self.objects.get(asked)
        return message_pb2.PullObjectResponse(
            object_found=content is not None,
            object_available=content is not None,
            object_content=content or b"",
        ).SerializeToString()

    def confirm_message_received(self, body):
        self.confirmed.append(message_pb2.ConfirmMessageReceivedRequest.FromString(body).message_object_id)
        return b""

    def push_messages(self, body):
        request = fleet_pb2.PushMessagesRequest.FromString(body)
        [message], [tree] = request.messages_list, request.message_object_trees
        ids = list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))
        with self.lock:
            self.replies[tree.object_id] = (message, ids)
            self._complete()
        missing = [key for key in ids if key not in self.stored]
        return fleet_pb2.PushMessagesResponse(objects_to_push=missing, session_id="s").SerializeToString()

    def push_object(self, body):
        request = message_pb2.PushObjectRequest.FromString(body)
        assert hashlib.sha256(request.object_content).hexdigest() == request.object_id
        with self.lock:
            self.stored[request.object_id] = request.object_content
            self._complete()
        return message_pb2.PushObjectResponse(stored=True).SerializeToString()

    def _complete(self):
        for root, (message, ids) in list(self.replies.items()):
            if all(key in self.stored for key in ids):
                inflated = inflate_object_from_contents(root, {key: self.stored[key] for key in ids})
                self.answers[message.metadata.reply_to_message_id] = inflated.content
                del self.replies[root]
