"""The gate as an ASGI application: eight of Flower's fleet calls, for whoever has an admitted certificate; no more exists.

The order is always the same: who calls, which path, how long the body may be, the body, what it says, whose it is.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography import x509
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
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from google.protobuf.message import DecodeError

from hilum.common.wire_ids import node_id_of
from hilum.server.gate.bounds import KIB, GateBounds
from hilum.server.gate.grid import GateGrid
from hilum.server.gate.mailbox import Mailbox
from hilum.server.gate.refused import RefusalLog, Refused

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_PIECE = 64 * KIB


class Admission(Protocol):
    """Who may call. It is asked for each call, in the event loop: it must answer from memory."""

    def name_of(self, certificate_der: bytes) -> str | None:
        """Return the site's name; None if the certificate is unknown, revoked, expired or replaced by a newer one."""
        ...


@dataclass(frozen=True)
class Peer:
    """The other end of a connection: its certificate, and whether it is still there."""

    certificate_der: bytes
    transport: asyncio.Transport


@dataclass(frozen=True)
class Caller:
    """A site at the other end of a connection; without a name it is not admitted."""

    name: str
    peer: Peer

    @property
    def node_id(self) -> int:
        """The only node id that this caller may name."""
        return node_id_of(self.name)

    def check(self, node_id: int) -> None:
        """Refuse a call in another node's name."""
        if node_id != self.node_id:
            raise Refused(403, "not_yours")


# What a call's body is, and what serves it.
Call = tuple[type[Any], Callable[[Any, Caller], Awaitable[Any]]]


class _Gone(Exception):  # noqa: N818 - not an error
    """The caller hung up."""


class Gate:
    """The application, and what the server's runs see of it; the latter may be called from any thread.

    Args:
        admission: Knows the certificates.
        bounds: How much a site may send, hold open and take its time for.
    """

    def __init__(self, admission: Admission, bounds: GateBounds | None = None) -> None:
        self.bounds = bounds or GateBounds()
        self.admission = admission
        self.refusals = RefusalLog()
        self.stopping = False
        self._mailbox = Mailbox(self.bounds)
        self._transfers: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(self.bounds.transfers_per_site)
        )
        self._calls: dict[str, Call] = {
            "/v1/fleet/activate-node": (ActivateNodeRequest, self._activate),
            "/v1/fleet/deactivate-node": (DeactivateNodeRequest, self._deactivate),
            "/v1/fleet/send-node-heartbeat": (SendNodeHeartbeatRequest, self._heartbeat),
            "/v1/fleet/pull-messages": (PullMessagesRequest, self._pull_messages),
            "/v1/fleet/push-messages": (PushMessagesRequest, self._push_messages),
            "/v1/fleet/pull-object": (PullObjectRequest, self._pull_object),
            "/v1/fleet/push-object": (PushObjectRequest, self._push_object),
            "/v1/fleet/confirm-message-received": (ConfirmMessageReceivedRequest, self._confirm),
        }

    def grid(self, run: str, sites: Collection[str]) -> GateGrid:
        """Return Flower's grid for a run; only these sites get its messages. Close it when the run ends."""
        return GateGrid(self._mailbox, run, sites)

    def seen(self) -> dict[str, float]:
        """Return the seconds since each site's last sign of life; a site that signed off is left out."""
        return self._mailbox.silence_s()

    def stop(self) -> None:
        """End the calls that are being held, because the server ends."""
        self.stopping = True
        self._mailbox.wake_all()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or say why not; a caller that does not take the answer is cut off."""
        peer: Peer = scope["state"]["peer"]
        name = self.admission.name_of(peer.certificate_der)
        try:
            try:
                await self._serve(scope, receive, send, Caller(name or "", peer))
            except Refused as refused:
                self.refusals.note(name, refused.code)
                async with asyncio.timeout(self.bounds.header_timeout_s):
                    await _respond_refused(send, refused)
        except (_Gone, TimeoutError):
            peer.transport.abort()
            while (await receive())["type"] != "http.disconnect":
                pass

    async def _serve(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        self._check_admitted(caller)
        self._mailbox.saw(caller.name)
        path = scope["raw_path"].decode("ascii")
        if scope["method"] != "POST" or path not in self._calls or scope["query_string"]:
            raise Refused(404, "unknown_path")
        kind, serve = self._calls[path]
        size_bytes = _length(scope["headers"])
        if size_bytes > self._most_bytes(kind):
            raise Refused(413, "body_too_large")
        if kind is PushObjectRequest:
            self._mailbox.check_room(caller.name, size_bytes)
        transfers = kind in (PushObjectRequest, PullObjectRequest)
        async with self._transfers[caller.name] if transfers else nullcontext():
            body = await self._body(receive, size_bytes)
            self._check_admitted(caller)
            try:
                request = kind.FromString(body)
            except DecodeError:
                raise Refused(400, "malformed") from None
            del body
            response = await serve(request, caller)
            await _respond(send, response.SerializeToString(), self.bounds.header_timeout_s)

    def _most_bytes(self, kind: type[Any]) -> int:
        if kind is PushObjectRequest:
            return self.bounds.object_bytes
        return self.bounds.announce_bytes if kind is PushMessagesRequest else self.bounds.call_bytes

    def _check_admitted(self, caller: Caller) -> None:
        """Refuse a site that is not admitted, or not any more."""
        if not caller.name or self.admission.name_of(caller.peer.certificate_der) != caller.name:
            raise Refused(401, "unknown_certificate")

    async def _body(self, receive: Receive, size_bytes: int) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self.bounds.body_timeout_s(size_bytes)):
                while True:
                    async with asyncio.timeout(self.bounds.header_timeout_s):
                        event = await receive()
                    if event["type"] == "http.disconnect":
                        raise _Gone
                    body += event["body"]
                    if not event["more_body"]:
                        return bytes(body)
        except TimeoutError:
            raise Refused(408, "slow_body") from None

    # The eight calls.

    async def _activate(self, request: ActivateNodeRequest, caller: Caller) -> ActivateNodeResponse:
        key = x509.load_der_x509_certificate(caller.peer.certificate_der).public_key()
        if request.public_key != key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo):
            raise Refused(403, "other_key")
        self._mailbox.activate(caller.name)
        return ActivateNodeResponse(node_id=caller.node_id)

    async def _deactivate(self, request: DeactivateNodeRequest, caller: Caller) -> DeactivateNodeResponse:
        caller.check(request.node_id)
        self._mailbox.deactivate(caller.name)
        return DeactivateNodeResponse()

    async def _heartbeat(
        self, request: SendNodeHeartbeatRequest, caller: Caller
    ) -> SendNodeHeartbeatResponse:
        caller.check(request.node.node_id)
        return SendNodeHeartbeatResponse(success=True)

    async def _pull_messages(self, request: PullMessagesRequest, caller: Caller) -> PullMessagesResponse:
        """Hand out a message; wait for one if there is none, but not for a caller that is gone or revoked meanwhile."""
        caller.check(request.node.node_id)
        loop = asyncio.get_running_loop()
        until = loop.time() + self.bounds.poll_s
        with self._mailbox.poll(caller.name) as woken:
            while not caller.peer.transport.is_closing():
                if message := self._mailbox.next_message(caller.name):
                    return PullMessagesResponse(
                        messages_list=[message.proto], message_object_trees=[message.tree]
                    )
                left = until - loop.time()
                if left <= 0 or self.stopping:
                    return PullMessagesResponse()
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), min(left, self.bounds.recheck_s))
                woken.clear()
                self._check_admitted(caller)
        raise _Gone

    async def _push_messages(self, request: PushMessagesRequest, caller: Caller) -> PushMessagesResponse:
        caller.check(request.node.node_id)
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise Refused(400, "malformed")
        metadata, tree = request.messages_list[0].metadata, request.message_object_trees[0]
        caller.check(metadata.src_node_id)
        missing = self._mailbox.announce(caller.name, metadata.run_id, metadata.reply_to_message_id, tree)
        return PushMessagesResponse(
            results={tree.object_id: 0}, objects_to_push=missing, session_id=tree.object_id
        )

    async def _pull_object(self, request: PullObjectRequest, caller: Caller) -> PullObjectResponse:
        caller.check(request.node.node_id)
        deflate = self._mailbox.object_of(caller.name, request.run_id, request.object_id)
        return PullObjectResponse(object_found=True, object_available=True, object_content=deflate())

    async def _push_object(self, request: PushObjectRequest, caller: Caller) -> PushObjectResponse:
        caller.check(request.node.node_id)
        self._mailbox.put_object(caller.name, request.run_id, request.object_id, request.object_content)
        return PushObjectResponse(stored=True)

    async def _confirm(
        self, request: ConfirmMessageReceivedRequest, caller: Caller
    ) -> ConfirmMessageReceivedResponse:
        caller.check(request.node.node_id)
        self._mailbox.confirm(caller.name, request.run_id, request.message_object_id)
        return ConfirmMessageReceivedResponse()


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    """Return the body's length as it was declared; h11 has checked that it is one number."""
    declared = dict(headers)
    if b"transfer-encoding" in declared or b"content-length" not in declared:
        raise Refused(411, "no_length")
    return int(declared[b"content-length"])


async def _respond(send: Send, body: bytes, patience_s: float) -> None:
    """Send an answer piece by piece, each of which the caller must take in time.

    Raises:
        TimeoutError: If it does not.
    """
    headers = [
        (b"content-type", PROTOBUF_MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    async with asyncio.timeout(patience_s):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
    view = memoryview(body)
    for start in range(0, max(1, len(view)), _PIECE):
        more = start + _PIECE < len(view)
        async with asyncio.timeout(patience_s):
            await send(
                {"type": "http.response.body", "body": bytes(view[start : start + _PIECE]), "more_body": more}
            )


async def _respond_refused(send: Send, refused: Refused) -> None:
    """Say the code, and close the connection: the rest of the body is never read."""
    body = refused.code.encode()
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
