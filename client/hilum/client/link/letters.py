"""Messages as they travel: what is checked before anything is inflated, and how a reply is taken apart.

Flower sends a message as a tree of objects, each named by the SHA-256 of its content; an object is a head
(`TYPE CHILD,CHILD LENGTH`), a zero byte and a body. A server that means harm can write any of it, so a site looks at
types, children, hashes, sizes and, because an array may name one chunk a million times, at what would come out.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from hilum.client.disclosure import outgoing
from hilum.client.link.fleet_client import MAX_OBJECT_BYTES
from hilum.common import records

MAX_MESSAGE_BYTES = 2 * 2**30
"""All objects of one message, and also what its arrays hold once they are put together."""

MAX_OBJECTS = 4096
MAX_RECORD_BYTES = 2**20  # an object that is not a chunk of an array: names, numbers, a signed study
MAX_RECORDS_BYTES = 4 * 2**20  # all of those together: they grow some tenfold when they are read
_MAX_DEPTH = 5  # message, content, record, array, chunk
_MAX_TTL_S = 366 * 86_400.0
_ID = re.compile(r"[0-9a-f]{64}")
_LENGTH = re.compile(r"[0-9]{1,8}")
_KINDS = frozenset({records.HELLO, records.SCORE, records.TRAIN, records.EVALUATE})
_PARTS_OF_HEAD = 3
_CHUNK, _ARRAY, _ROOT = "ArrayChunk", "Array", "Message"
_MAY_HOLD: Mapping[str, frozenset[str]] = {
    _ROOT: frozenset({"RecordDict"}),
    "RecordDict": frozenset({"ArrayRecord", "ConfigRecord", "MetricRecord"}),
    "ArrayRecord": frozenset({_ARRAY}),
    _ARRAY: frozenset({_CHUNK}),
    _CHUNK: frozenset(),
    "ConfigRecord": frozenset(),
    "MetricRecord": frozenset(),
}


class Malformed(Exception):  # noqa: N818 - what the message is
    """A message is not one that a site works on; the link drops it, or answers with a code.

    The text is ours: it quotes nothing that came.
    """


@dataclass(frozen=True)
class Letter:
    """A message that was announced to this site, before its objects are there.

    Attributes:
        metadata: Who asks for what; Flower's, without content.
        root: The object that stands for the whole message.
        children: Of each object, in the order in which they are asked for: a child comes before its parent.
        made_s: When the server made it, by this machine's monotonic clock.
    """

    metadata: MessageProto
    root: str
    children: Mapping[str, tuple[str, ...]] = field(repr=False)
    made_s: float

    @property
    def ends_s(self) -> float:
        """When nobody waits for an answer any more, by the same clock."""
        return self.made_s + self.metadata.metadata.ttl

    @property
    def kind(self) -> str:
        """Query, train or evaluate."""
        return self.metadata.metadata.message_type

    @property
    def run_id(self) -> int:
        """Flower's number of the run."""
        return self.metadata.metadata.run_id

    @property
    def message_id(self) -> str:
        """Flower's id of the message."""
        return self.metadata.metadata.message_id


@dataclass(frozen=True)
class Reply:
    """A reply in pieces, ready to be sent."""

    message: MessageProto
    tree: ObjectTree
    objects: Mapping[str, bytes] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """What all its objects weigh."""
        return sum(map(len, self.objects.values()))


def open_letter(sent: MessageProto, tree: ObjectTree, *, node_id: int, clock_ahead_s: float) -> Letter:
    """Check what was announced.

    Args:
        sent: The message without its content; content that comes with it is dropped.
        tree: Its objects.
        node_id: This site's.
        clock_ahead_s: How far this machine's clock is ahead of the server's.

    Raises:
        Malformed: If it is not a message that a site works on.
    """
    facts = sent.metadata
    if facts.message_type not in _KINDS:
        raise Malformed("its type is none of query, query.score, train and evaluate")
    if facts.dst_node_id != node_id:
        raise Malformed("it is addressed to another site")
    if not _ID.fullmatch(facts.message_id):
        raise Malformed("its id is not one")
    if facts.reply_to_message_id or sent.HasField("error"):
        raise Malformed("it is a reply or an error, not a request")
    if not (math.isfinite(facts.created_at) and math.isfinite(facts.ttl) and 0 < facts.ttl <= _MAX_TTL_S):
        raise Malformed("its time to live is not a number of seconds")
    age_s = max(0.0, time.time() - clock_ahead_s - facts.created_at)
    return Letter(
        metadata=MessageProto(metadata=facts),
        root=tree.object_id,
        children=_children_of(tree),
        made_s=time.monotonic() - age_s,
    )


def _children_of(tree: ObjectTree) -> dict[str, tuple[str, ...]]:
    """Return the children of each object, children before parents."""
    found: dict[str, tuple[str, ...]] = {}
    nodes = 0

    def visit(node: ObjectTree, depth: int) -> None:
        nonlocal nodes
        nodes += 1
        if depth > _MAX_DEPTH or nodes + len(node.children) > MAX_OBJECTS:
            raise Malformed(f"it has more than {_MAX_DEPTH} levels or {MAX_OBJECTS} objects")
        for child in node.children:
            visit(child, depth + 1)
        children = tuple(child.object_id for child in node.children)
        if not _ID.fullmatch(node.object_id) or found.setdefault(node.object_id, children) != children:
            raise Malformed("its objects are not named by their content")

    visit(tree, 1)
    return found


class Arrival:
    """The objects of one letter as they arrive: kept over a broken link, and checked one by one.

    Args:
        letter: What was announced.
        at_most_bytes: All of it together.
    """

    def __init__(self, letter: Letter, at_most_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.objects: dict[str, bytes] = {}
        self._letter, self._left, self._out_left = letter, at_most_bytes, at_most_bytes
        self._records_left = MAX_RECORDS_BYTES
        self._types: dict[str, str] = {}
        self._body_bytes: dict[str, int] = {}

    @property
    def missing(self) -> Iterator[str]:
        """The objects that are still to be asked for."""
        return (key for key in self._letter.children if key not in self.objects)

    def put(self, object_id: str, content: bytes) -> None:
        """Keep one object.

        Raises:
            Malformed: If it is not the one that was asked for, or the message gets too large with it.
        """
        self._left -= len(content)
        if self._left < 0 or len(content) > MAX_OBJECT_BYTES:
            raise Malformed("it is larger than this site takes")
        if hashlib.sha256(content).hexdigest() != object_id:
            raise Malformed("an object is not the one that was asked for")
        kind, body_at = _read_head(content, self._letter.children[object_id])
        if kind != _CHUNK:
            self._records_left -= len(content)
            if len(content) > MAX_RECORD_BYTES or self._records_left < 0:
                raise Malformed("an object is larger than its type needs")
        children = self._letter.children[object_id]
        if any(self._types.get(child) not in _MAY_HOLD[kind] for child in children):
            raise Malformed("an object holds others that do not belong in it")
        if (kind == _ROOT) != (object_id == self._letter.root) or (kind == _ROOT and len(children) != 1):
            raise Malformed("it is not one message")
        if kind == _ARRAY:
            self._measure(children, content[body_at:])
        self._types[object_id], self._body_bytes[object_id] = kind, len(content) - body_at
        self.objects[object_id] = content

    def _measure(self, children: tuple[str, ...], body: bytes) -> None:
        """Count what an array would hold: it names its chunks by number, and may name one again."""
        try:
            order = json.loads(body)["arraychunk_ids"]
            self._out_left -= sum(self._body_bytes[children[index]] for index in order)
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise Malformed("an array does not say what it is made of") from None
        if self._out_left < 0:
            raise Malformed("it is larger than this site takes")


def _read_head(content: bytes, children: tuple[str, ...]) -> tuple[str, int]:
    """Return the type of an object, and where its body begins.

    Raises:
        Malformed: If the head is not one, or names other children or another length.
    """
    end = content.find(b"\0", 0, 100 + 65 * len(children))
    parts = content[: max(end, 0)].decode("ascii", "replace").split(" ")
    if len(parts) != _PARTS_OF_HEAD:
        raise Malformed("an object has no head")
    kind, named, length = parts
    fits = named == ",".join(children) and _LENGTH.fullmatch(length) and int(length) == len(content) - end - 1
    if kind not in _MAY_HOLD or not fits:
        raise Malformed("the head of an object is not that of its content")
    return kind, end + 1


def read_request(letter: Letter, objects: dict[str, bytes]) -> Message:
    """Put a message together; its objects are used up. Its clock is set to this machine's.

    Raises:
        Exception: Whatever Flower raises for content that is not a record of its.
    """
    inflated = inflate_object_from_contents(letter.root, objects)
    assert isinstance(inflated, Message)
    request = _message_of(letter)
    request.content = inflated.content
    return request


def _message_of(letter: Letter) -> Message:
    """Return the message without its content, as it was announced, not as its objects say."""
    sent = MessageProto(metadata=letter.metadata.metadata)
    sent.content.SetInParent()  # empty: Flower makes no message without content
    request = message_from_proto(sent)
    request.metadata.created_at = time.time() - (time.monotonic() - letter.made_s)
    return request


def pack_reply(
    letter: Letter, content: RecordDict
) -> tuple[MessageProto, ObjectTree, dict[str, InflatableObject]]:
    """Take a reply apart: its announcement, its tree, and its objects, to be deflated one by one."""
    request = _message_of(letter)
    reply = Message(content, reply_to=request)
    # Back to the server's clock.
    reply.metadata.created_at += letter.metadata.metadata.created_at - request.metadata.created_at
    with no_object_id_recompute():
        objects = get_all_nested_objects(reply)
        tree = get_object_tree(reply)
    announced = message_to_proto(remove_content_from_message(reply))
    announced.metadata.message_id = tree.object_id
    return announced, tree, objects


def refusal(letter: Letter, site: str, code: str) -> Reply:
    """Return a reply that says no, made without the trainer."""
    message, tree, objects = pack_reply(letter, outgoing.refusal(site, code))
    return Reply(message, tree, {key: one.deflate() for key, one in objects.items()})
