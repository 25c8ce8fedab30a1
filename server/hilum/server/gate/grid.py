"""Flower's grid on the gate's mailbox: what a run uses to talk to its sites. Call it from any thread but the event loop's."""

import time
from collections.abc import Callable, Collection, Iterable
from types import MappingProxyType, TracebackType
from typing import Self

from flwr.app import Error, Message, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from hilum.common.wire_ids import SERVER_NODE_ID, node_id_of, run_id_of
from hilum.server.gate.bounds import KIB
from hilum.server.gate.mailbox import Mailbox, OpenMessage
from hilum.server.gate.objects import ArrivingReply

DEFAULT_REPLY_BYTES = 64 * KIB


class GateGrid(Grid):
    """The grid of one run.

    Args:
        mailbox: The gate's.
        run: The run's name.
        sites: The names of the sites that take part; no other gets a message.

    Attributes:
        names: The site of each node id.
    """

    def __init__(self, mailbox: Mailbox, run: str, sites: Collection[str]) -> None:
        self._mailbox = mailbox
        self._run = Run.create_empty(run_id_of(run))
        self._reply_limits: dict[str, int] = {}
        self.names = MappingProxyType({node_id_of(site): site for site in sites})
        # Flower's Message reads who is speaking from this process-wide place.
        TaskIdentity.task_id = TaskIdentity.run_id = self._run.run_id
        TaskIdentity.node_id = SERVER_NODE_ID

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget this run's messages and objects; sites that still work on them are told so."""
        self._mailbox.drop_run(self._run.run_id)

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def reply_limit(self, message_type: str, size_bytes: int) -> None:
        """Set the most bytes that a reply to messages of this type may hold; they are 64 KiB where nothing is set."""
        self._reply_limits[message_type] = size_bytes

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message; Flower's interface still asks for it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the run's sites that gave a sign of life lately."""
        silence_s = self._mailbox.silence_s()
        alive_s = self._mailbox.bounds.alive_s
        return [node_id for node_id, name in self.names.items() if silence_s.get(name, alive_s) < alive_s]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Put messages into their sites' boxes; give their ids.

        Raises:
            ValueError: If a message is for a node that is not of this run, or was pushed before.
        """
        ready = list(messages)
        with no_object_id_recompute():  # an array that several messages share is hashed once
            return [self._push(message) for message in ready]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there, each once.

        A site that did not answer in time, or whose reply was too large or malformed, is a message with an error.
        """
        taken = self._mailbox.take(self._run.run_id, list(message_ids))
        replies = []
        while taken:  # what a reply is made of is let go before the next one is read
            replies.append(_reply(*taken.pop(0)))
        return replies

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Forget messages: a site that has not answered them is not asked any more, and told so if it answers."""
        self._mailbox.withdraw(self._run.run_id, message_ids)

    def wait(self, message_ids: Iterable[str], timeout_s: float) -> bool:
        """Return as soon as one of these has a reply to pull, or when the time is over.

        Returns:
            False if there is nothing to wait for.
        """
        return self._mailbox.wait(list(message_ids), timeout_s)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, and return what is answered in time."""
        until = time.monotonic() + (float("inf") if timeout is None else timeout)
        left = set(self.push_messages(messages))
        replies: list[Message] = []
        while self.wait(left, until - time.monotonic()):
            pulled = list(self.pull_messages(left))
            left.difference_update(reply.metadata.reply_to_message_id for reply in pulled)
            replies.extend(pulled)
            if time.monotonic() >= until:
                break
        return replies

    def _push(self, message: Message) -> str:
        metadata = message.metadata
        if (site := self.names.get(metadata.dst_node_id)) is None:
            raise ValueError(f"node {metadata.dst_node_id} is not a site of this run")
        facts = metadata.__dict__  # Flower's own engines set these; there is no setter
        facts["_run_id"], facts["_src_node_id"] = self._run.run_id, SERVER_NODE_ID
        facts["_message_id"] = message.object_id
        objects = get_all_nested_objects(message)
        age_s = time.time() - metadata.created_at
        self._mailbox.post(
            OpenMessage(
                site=site,
                metadata=metadata,
                proto=message_to_proto(remove_content_from_message(message)),
                tree=get_object_tree(message),
                object_ids=frozenset(objects),
                deadline=time.monotonic() + metadata.ttl - age_s,
                reply_limit_bytes=self._reply_limits.get(metadata.message_type, DEFAULT_REPLY_BYTES),
            ),
            {object_id: _deflater(found) for object_id, found in objects.items()},
        )
        return metadata.message_id


def _deflater(found: InflatableObject) -> Callable[[], bytes]:
    """Return what makes an object's bytes: a chunk stays a view of its array until it is asked for."""
    if isinstance(found, ArrayChunk):
        return found.deflate
    content = found.deflate()
    return lambda: content


def _reply(message: OpenMessage, answer: ArrivingReply | Error) -> Message:
    """Make Flower's message of an answer; only its content is the site's."""
    asked = message.metadata
    metadata = Metadata(
        run_id=asked.run_id,
        message_id=message.reply_id,
        src_node_id=asked.dst_node_id,
        dst_node_id=SERVER_NODE_ID,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        created_at=time.time(),
        ttl=asked.ttl,
        message_type=asked.message_type,
    )
    content = answer.content() if isinstance(answer, ArrivingReply) else answer
    if isinstance(content, Error):
        return make_message(metadata, error=content)
    return make_message(metadata, content=content)
