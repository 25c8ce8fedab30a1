"""Replies made by hand, object by object."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import RecordDict
from flwr.proto.message_pb2 import ObjectTree

from gate_site import SITES, Site, Trial
from hilum.server.gate import GateBounds, GateGrid
from hilum.server.gate.objects import ArrivingReply

KIB, MIB = 2**10, 2**20
BOUNDS = GateBounds()


@dataclass
class Forged:
    """An object made by hand: it says what it likes."""

    kind: str
    body: bytes = b""
    children: Sequence["Forged"] = ()
    length: int | None = None
    id: str = field(init=False)
    content: bytes = field(init=False)

    def __post_init__(self) -> None:
        names = ",".join(child.id for child in self.children)
        length = len(self.body) if self.length is None else self.length
        self.content = f"{self.kind} {names} {length}".encode() + b"\0" + self.body
        self.id = hashlib.sha256(self.content).hexdigest()

    @property
    def tree(self) -> ObjectTree:
        return ObjectTree(object_id=self.id, children=[child.tree for child in self.children])

    def all(self) -> Iterator["Forged"]:
        for child in self.children:
            yield from child.all()
        yield self


def names_of(**children: Forged) -> bytes:
    return json.dumps({name: child.id for name, child in children.items()}).encode()


def array(chunks: Sequence[Forged], **changes: object) -> Forged:
    facts = {
        "dtype": "float32",
        "shape": [1],
        "stype": "hilum.flat",
        "arraychunk_ids": list(range(len(chunks))),
    }
    return Forged("Array", json.dumps({**facts, **changes}).encode(), chunks)


def message(record: Forged, kind: str = "RecordDict") -> Forged:
    return Forged("Message", b"", [Forged(kind, names_of(arrays=record), [record])])


def arrays(one: Forged) -> Forged:
    return Forged("ArrayRecord", names_of(w=one), [one])


def arrived(forged: Forged, limit_bytes: int = MIB) -> ArrivingReply:
    """A reply, all objects of which came."""
    reply = ArrivingReply(forged.tree, limit_bytes, BOUNDS)
    for one in forged.all():
        reply.put(one.id, one.content)
    assert reply.missing == []
    return reply


def error_code(forged: Forged, limit_bytes: int = MIB) -> int:
    content = arrived(forged, limit_bytes).content()
    return 0 if isinstance(content, RecordDict) else content.code


CHUNK = Forged("ArrayChunk", b"1234")


@contextlib.contextmanager
def running(folder: Path, bounds: GateBounds | None = None) -> Iterator[tuple[Site, GateGrid]]:
    trial = Trial(folder, bounds).start()
    try:
        with trial.gate.grid("run-1", SITES) as grid:
            yield trial.site(), grid
    finally:
        trial.stop()
