"""The eight calls of Flower's Fleet protocol that a site makes, and no other.

Flower's own client follows redirects, reads answers of any size and can ask for bundles of code; this one can't. Bodies
are protobuf over HTTP/1.1 as in `flwr.supercore.protobuf.client`.
"""

import email.utils
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar, cast

import httpcore
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.node_pb2 import Node
from google.protobuf.message import DecodeError, Message

from hilum.client.link.identity import Identity
from hilum.client.link.proxies import Proxy, proxy_for
from hilum.client.link.transport import Backend, Progress, Stage
from hilum.common.errors import FederationError

HEARTBEAT_S = 5.0
MAX_OBJECT_BYTES = 5 * 2**20 + 64 * 1024
"""One object: Flower cuts arrays into 5 MiB, and adds a head of some bytes."""

_MEDIA_TYPE = "application/protobuf"
_SMALL_BYTES = 64 * 1024
_LISTING_BYTES = 2**20  # trees and lists of objects
_PIECE_BYTES = 64 * 1024
_CALL_S, _OBJECT_S = 30.0, 600.0  # an object of 5 MiB at 70 kbit/s
_STEP_S = 20.0
_CONNECT_S = 10.0
_IDLE_S = 30.0
_OK, _NOT_FOUND, _REDIRECTS = 200, 404, range(300, 400)

_Answer = TypeVar("_Answer", bound=Message)
_CALL_FAILED = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    OSError,
)


class CallError(FederationError):
    """A call did not succeed: it failed, was refused, or was answered by someone else."""


class CallFailed(CallError):  # noqa: N818 - what happened to the call
    """A call had no answer; the cause is chained.

    Attributes:
        stage: How far it came.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.value)
        self.stage = stage


class Answered(CallError):  # noqa: N818 - likewise
    """The server answered with a status other than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class NotAServer(CallError):  # noqa: N818 - likewise
    """Something answered that is not a Hilum server. The text says how it showed."""


class TooLarge(CallError):  # noqa: N818 - likewise
    """An answer was longer than any such answer can be; it was not read further."""


@dataclass
class _Pieces:
    """A body in pieces, so that a slow link is seen to move. httpcore may begin it twice."""

    body: bytes = field(repr=False)

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self.body), _PIECE_BYTES):
            yield self.body[start : start + _PIECE_BYTES]


class FleetClient:
    """One site's calls. Several threads may call at once; each call uses a connection of its own.

    Where a call takes `moved`, that is called whenever the call moves: the loop's stamp. Other threads pass none.

    Args:
        identity: The papers, and which server.
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.proxy: Proxy | None = proxy_for(identity.host, os.environ)
        self.clock_ahead_s: float | None = None
        """How far this machine's clock is ahead of the server's, after the first answer."""
        self.answered = False
        """Whether the server has answered since this client was made."""
        self._progress = Progress()
        self._pool = _make_pool(identity, self.proxy, self._progress)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def activate(self, moved: Callable[[], None] | None = None) -> int:
        """Say that this site is here; give its node id."""
        key = self.identity.certificate.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        request = ActivateNodeRequest(public_key=key, heartbeat_interval=HEARTBEAT_S)
        return self._call("activate-node", request, ActivateNodeResponse, moved).node_id

    def deactivate(self, node_id: int, deadline_s: float) -> None:
        """Say that this site leaves."""
        request = DeactivateNodeRequest(node_id=node_id)
        self._call("deactivate-node", request, DeactivateNodeResponse, None, deadline_s=deadline_s)

    def heartbeat(self, node_id: int) -> bool:
        """Say that this site is still here. False: the server does not know that it is."""
        request = SendNodeHeartbeatRequest(node=Node(node_id=node_id), heartbeat_interval=HEARTBEAT_S)
        return self._call("send-node-heartbeat", request, SendNodeHeartbeatResponse, None).success

    def pull_messages(
        self, node_id: int, moved: Callable[[], None] | None = None
    ) -> list[tuple[MessageProto, ObjectTree]]:
        """Ask for messages; the server may take some seconds before it says that there are none.

        Raises:
            NotAServer: If messages and trees don't pair.
        """
        request = PullMessagesRequest(node=Node(node_id=node_id))
        answer = self._call(
            "pull-messages", request, PullMessagesResponse, moved, at_most_bytes=_LISTING_BYTES
        )
        if len(answer.messages_list) != len(answer.message_object_trees):
            raise NotAServer("its messages lack their lists of objects")
        return list(zip(answer.messages_list, answer.message_object_trees, strict=True))

    def pull_object(
        self, node_id: int, run_id: int, object_id: str, moved: Callable[[], None] | None = None
    ) -> PullObjectResponse:
        """Ask for one object of a message."""
        request = PullObjectRequest(node=Node(node_id=node_id), run_id=run_id, object_id=object_id)
        limit = MAX_OBJECT_BYTES + _SMALL_BYTES
        return self._call(
            "pull-object", request, PullObjectResponse, moved, at_most_bytes=limit, deadline_s=_OBJECT_S
        )

    def confirm(
        self, node_id: int, run_id: int, message_object_id: str, moved: Callable[[], None] | None = None
    ) -> None:
        """Say that all objects of a message have arrived."""
        request = ConfirmMessageReceivedRequest(
            node=Node(node_id=node_id), run_id=run_id, message_object_id=message_object_id
        )
        self._call("confirm-message-received", request, ConfirmMessageReceivedResponse, moved)

    def push_messages(
        self, node_id: int, message: MessageProto, tree: ObjectTree, moved: Callable[[], None] | None = None
    ) -> PushMessagesResponse:
        """Announce a reply; the answer says which of its objects the server has not got."""
        request = PushMessagesRequest(
            node=Node(node_id=node_id), messages_list=[message], message_object_trees=[tree]
        )
        return self._call("push-messages", request, PushMessagesResponse, moved, at_most_bytes=_LISTING_BYTES)

    def push_object(
        self,
        node_id: int,
        run_id: int,
        session_id: str,
        object_id: str,
        content: bytes,
        moved: Callable[[], None] | None = None,
    ) -> bool:
        """Send one object of a reply. False: the server wants the reply announced again."""
        request = PushObjectRequest(
            node=Node(node_id=node_id),
            run_id=run_id,
            object_id=object_id,
            object_content=content,
            session_id=session_id,
        )
        return self._call("push-object", request, PushObjectResponse, moved, deadline_s=_OBJECT_S).stored

    def _call(
        self,
        path: str,
        request: Message,
        answer_type: type[_Answer],
        moved: Callable[[], None] | None,
        *,
        at_most_bytes: int = _SMALL_BYTES,
        deadline_s: float = _CALL_S,
    ) -> _Answer:
        """Make one call.

        Raises:
            CallFailed: If there was no answer.
            Answered: If the server refused.
            NotAServer: If what answered is not a Hilum server.
            TooLarge: If the answer has no end.
        """
        body = request.SerializeToString()
        with self._progress.call(deadline_s, moved):
            try:
                try:
                    content = self._exchange(path, body, at_most_bytes)
                except _CALL_FAILED:
                    # An idle connection may have been closed at the other end just now. All calls may be repeated.
                    if self._progress.stage is not Stage.ANSWER:
                        raise
                    self._progress.left(None, httpcore.ReadTimeout)
                    content = self._exchange(path, body, at_most_bytes)
            except _CALL_FAILED as error:
                raise CallFailed(self._progress.stage) from error
        answer: _Answer = answer_type()
        try:
            answer.ParseFromString(content)
        except DecodeError:
            raise NotAServer("its answer is not a message of the protocol") from None
        self.answered = True
        return answer

    def _exchange(self, path: str, body: bytes, at_most_bytes: int) -> bytes:
        """Send one request, and read its answer up to a limit."""
        url = httpcore.URL(
            scheme=b"https",
            host=self.identity.host.encode(),
            port=self.identity.port,
            target=f"/v1/fleet/{path}".encode(),
        )
        headers = [
            ("Content-Type", _MEDIA_TYPE),
            ("Accept", _MEDIA_TYPE),
            ("Accept-Encoding", "identity"),
            ("Content-Length", str(len(body))),
        ]
        timeouts = {"connect": _CONNECT_S, "read": _STEP_S, "write": _STEP_S, "pool": _STEP_S}
        pieces = cast("Iterator[bytes]", _Pieces(body))  # any iterable will do
        with self._pool.stream(
            "POST", url, headers=headers, content=pieces, extensions={"timeout": timeouts}
        ) as response:
            self._judge(response)
            content = bytearray()
            for piece in response.iter_stream():
                content += piece
                if len(content) > at_most_bytes:
                    raise TooLarge
        return bytes(content)

    def _judge(self, response: httpcore.Response) -> None:
        """Tell a Hilum server's answer from others', by its head alone."""
        headers = {name.lower(): value for name, value in response.headers}
        self._compare_clocks(headers.get(b"date", b""))
        if response.status == _NOT_FOUND or response.status in _REDIRECTS:
            how = "has no such page" if response.status == _NOT_FOUND else "sends its visitors elsewhere"
            raise NotAServer(f"it {how} ({response.status})")
        if response.status != _OK:
            raise Answered(response.status)
        if headers.get(b"content-type", b"").split(b";")[0].strip() != _MEDIA_TYPE.encode():
            raise NotAServer("its answer is of another type")

    def _compare_clocks(self, date: bytes) -> None:
        try:
            parsed = email.utils.parsedate_to_datetime(date.decode("ascii", "replace"))
            self.clock_ahead_s = time.time() - parsed.timestamp()
        except (ValueError, TypeError, OverflowError, OSError):
            self.clock_ahead_s = None


def _make_pool(identity: Identity, proxy: Proxy | None, progress: Progress) -> httpcore.ConnectionPool:
    backend = Backend(progress, through_proxy=proxy is not None)
    if proxy is None:
        return httpcore.ConnectionPool(
            ssl_context=identity.context,
            keepalive_expiry=_IDLE_S,
            max_connections=4,
            network_backend=backend,
        )
    return httpcore.HTTPProxy(
        httpcore.URL(scheme=b"http", host=proxy.host.encode(), port=proxy.port, target=b"/"),
        proxy_auth=proxy.login,
        ssl_context=identity.context,
        keepalive_expiry=_IDLE_S,
        max_connections=4,
        network_backend=backend,
    )
