"""A site's reply as it arrives: a tree of objects, each named by its SHA-256, checked and counted before it is kept.

Flower writes an object as `TYPE CHILD,CHILD,... LENGTH`, a zero byte, and a body. Its own reading of them trusts the
sender; this one knows the five types that a reply is made of, and how large the arrays may become in memory.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree

from hilum.server.gate.bounds import GateBounds
from hilum.server.gate.refused import Refused

# Beside Flower's codes of errors, which end at 8.
TOO_LARGE, MALFORMED = 101, 102
REASONS = {
    TOO_LARGE: "the reply is larger than this kind of message allows",
    MALFORMED: "the reply is not a well-formed message",
    ErrorCode.MESSAGE_UNAVAILABLE: "the time for an answer is over",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "the site's program failed",
}
_MESSAGE, _CONTENT, _ARRAYS, _ARRAY, _CHUNK = "Message", "RecordDict", "ArrayRecord", "Array", "ArrayChunk"
_RECORDS: dict[str, type[ConfigRecord] | type[MetricRecord]] = {
    "ConfigRecord": ConfigRecord,
    "MetricRecord": MetricRecord,
}
_KINDS = {_MESSAGE, _CONTENT, _ARRAYS, _ARRAY, _CHUNK, *_RECORDS}
_ID = re.compile(r"[0-9a-f]{64}")
_LENGTH = re.compile(r"[0-9]{1,9}")


class Malformed(Refused):
    """What a site sent is not what Flower would send; the reply fails with it."""

    def __init__(self) -> None:
        super().__init__(400, "malformed")


class TooLarge(Refused):
    """A reply is over its limit; the reply fails with it."""

    def __init__(self) -> None:
        super().__init__(413, "too_large")


def error_of(code: int) -> Error:
    """Return Flower's error with our words for it."""
    return Error(code, REASONS[code])


def children_of(tree: ObjectTree, bounds: GateBounds) -> dict[str, tuple[str, ...]]:
    """Return the children of each object of a tree, without recursion.

    Raises:
        Malformed: If the tree is too deep or has too many nodes, an id is not a hash, or an object has two sets of
            children, as it would if it contained itself.
    """
    found: dict[str, tuple[str, ...]] = {}
    left, nodes = [(tree, 1)], 0
    while left:
        node, depth = left.pop()
        nodes += 1
        if (
            len(node.children) > bounds.objects_per_message
        ):  # before each of them is made an object of Python's
            raise Malformed
        children = tuple(child.object_id for child in node.children)
        well_formed = _ID.fullmatch(node.object_id) and found.setdefault(node.object_id, children) == children
        if not well_formed or depth > bounds.tree_depth or nodes + len(left) > bounds.objects_per_message:
            raise Malformed
        left.extend((child, depth + 1) for child in node.children)
    return found


@dataclass(frozen=True)
class StoredObject:
    """One object, its head read."""

    kind: str
    children: tuple[str, ...]
    content: bytes = field(repr=False)
    body_at: int

    @property
    def body(self) -> memoryview:
        """What follows the head."""
        return memoryview(self.content)[self.body_at :]


def read_object(content: bytes, children: tuple[str, ...]) -> StoredObject:
    """Read an object's head.

    Raises:
        Malformed: If it is not a head, or does not have these children.
    """
    # The head can't be longer than the children that were announced.
    end = content.find(b"\0", 0, 100 + 65 * len(children))
    parts = content[: max(end, 0)].split(b" ")
    if len(parts) != 3:  # noqa: PLR2004 - type, children, length
        raise Malformed
    kind, names, length = (part.decode("ascii", "replace") for part in parts)
    well_formed = (
        kind in _KINDS
        and names == ",".join(children)
        and _LENGTH.fullmatch(length)
        and int(length) == len(content) - end - 1
    )
    if not well_formed:
        raise Malformed
    return StoredObject(kind, children, content, end + 1)


class ArrivingReply:
    """The objects of one reply, until all are there.

    Args:
        tree: What the site announced.
        limit_bytes: The most that all objects together may hold.
        bounds: The gate's.

    Raises:
        Malformed: If the tree can't be that of a message.
    """

    def __init__(self, tree: ObjectTree, limit_bytes: int, bounds: GateBounds) -> None:
        self.root = tree.object_id
        self.limit_bytes = limit_bytes
        self._record_bytes_left = bounds.record_bytes
        self._children = children_of(tree, bounds)
        self._objects: dict[str, StoredObject] = {}
        self._size_bytes = 0

    @property
    def ids(self) -> frozenset[str]:
        """All objects that the reply is made of."""
        return frozenset(self._children)

    @property
    def missing(self) -> list[str]:
        """The objects that are still to come."""
        return [object_id for object_id in self._children if object_id not in self._objects]

    def put(self, object_id: str, content: bytes) -> None:
        """Keep one object; once more is as good as once.

        Raises:
            Malformed: If the content is not what its id says, or not an object.
            TooLarge: If the reply would be over its limit.
        """
        if object_id in self._objects:
            return
        if self._size_bytes + len(content) > self.limit_bytes:
            raise TooLarge
        if hashlib.sha256(content).hexdigest() != object_id:
            raise Malformed
        stored = read_object(content, self._children[object_id])
        if stored.kind != _CHUNK:
            self._record_bytes_left -= len(content)
            if self._record_bytes_left < 0:
                raise TooLarge
        self._size_bytes += len(content)
        self._objects[object_id] = stored

    def content(self) -> RecordDict | Error:
        """Return what the reply says, or why it can't be read; never an exception."""
        try:
            return _Reader(self._objects, self.limit_bytes).message(self.root)
        except TooLarge:
            return error_of(TOO_LARGE)
        except Exception:  # whatever hostile bytes make a parser raise
            return error_of(MALFORMED)


class _Reader:
    """Reads complete objects from the message down; an object of the wrong type raises Malformed."""

    def __init__(self, objects: Mapping[str, StoredObject], limit_bytes: int) -> None:
        self._objects = objects
        self._bytes_left = limit_bytes
        self._arrays: dict[str, Array] = {}
        self._records: dict[str, ArrayRecord | ConfigRecord | MetricRecord] = {}

    def message(self, object_id: str) -> RecordDict | Error:
        stored = self._of_kind(object_id, _MESSAGE)
        sent = ProtoMessage.FromString(bytes(stored.body))
        if sent.HasField("error"):
            return error_of(ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
        (content,) = stored.children
        names = self._names(self._of_kind(content, _CONTENT))
        return RecordDict({name: self._record(record) for name, record in names.items()})

    def _record(self, object_id: str) -> ArrayRecord | ConfigRecord | MetricRecord:
        """Read a record once, however many names it has: what it grows to is bounded by what was sent."""
        if object_id not in self._records:
            self._records[object_id] = self._inflated(object_id)
        return self._records[object_id]

    def _inflated(self, object_id: str) -> ArrayRecord | ConfigRecord | MetricRecord:
        stored = self._objects[object_id]
        if stored.kind in _RECORDS:
            if stored.children:
                raise Malformed
            return _RECORDS[stored.kind].inflate(stored.content)
        names = self._names(self._of_kind(object_id, _ARRAYS))
        return ArrayRecord({name: self._array(array) for name, array in names.items()})

    def _array(self, object_id: str) -> Array:
        """Join an array's chunks; it may name one of them often, so what counts is what comes out."""
        if object_id in self._arrays:
            return self._arrays[object_id]
        stored = self._of_kind(object_id, _ARRAY)
        facts = json.loads(bytes(stored.body))
        shape, order = _whole_numbers(facts["shape"]), _whole_numbers(facts["arraychunk_ids"])
        if set(order) != set(range(len(stored.children))):
            raise Malformed
        chunks = [self._of_kind(child, _CHUNK) for child in stored.children]
        if any(chunk.children for chunk in chunks):
            raise Malformed
        self._bytes_left -= sum(len(chunks[index].body) for index in order)
        if self._bytes_left < 0:
            raise TooLarge
        data = b"".join(chunks[index].body for index in order)
        self._arrays[object_id] = Array(dtype=facts["dtype"], shape=shape, stype=facts["stype"], data=data)
        return self._arrays[object_id]

    def _of_kind(self, object_id: str, kind: str) -> StoredObject:
        stored = self._objects[object_id]
        if stored.kind != kind:
            raise Malformed
        return stored

    def _names(self, stored: StoredObject) -> dict[str, str]:
        """Return which child each name stands for."""
        names = json.loads(bytes(stored.body))
        if not isinstance(names, dict) or set(names.values()) != set(stored.children):
            raise Malformed
        return names


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise Malformed
    return tuple(values)


class SharedObjects:
    """What the server sends: each object once, however many messages are made of it."""

    def __init__(self) -> None:
        self._held: dict[str, Callable[[], bytes]] = {}
        self._uses: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, objects: Mapping[str, Callable[[], bytes]]) -> None:
        """Keep a message's objects: by id, what makes their bytes."""
        for object_id, deflate in objects.items():
            self._held.setdefault(object_id, deflate)
            self._uses[object_id] = self._uses.get(object_id, 0) + 1

    def release(self, object_ids: Iterable[str]) -> None:
        """Let go of a message's objects."""
        for object_id in object_ids:
            self._uses[object_id] -= 1
            if not self._uses[object_id]:
                del self._uses[object_id], self._held[object_id]

    def get(self, object_id: str) -> Callable[[], bytes]:
        """Return what makes an object's bytes."""
        return self._held[object_id]
