"""Messages as a server announces them, and objects made by hand."""

import hashlib
import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from hilum.client.link.letters import Arrival, open_letter
from hilum.common.wire_ids import node_id_of

NODE = node_id_of("site-a")
LARGE = 12 * 2**20


def content_of(size_bytes=1000) -> RecordDict:
    values = np.arange(size_bytes // 4, dtype="<f4")
    array = Array("float32", (values.size,), "hilum.flat", values.tobytes())
    facts = ConfigRecord({"document": b"study", "signature": b"s", "round": 3})
    return RecordDict({"facts": facts, "arrays": ArrayRecord({"weights": array})})


def request(content=None, **changes):
    """A message as a server sends it: announcement, tree and objects."""
    facts = {
        "run_id": 7,
        "message_id": "",
        "src_node_id": 1,
        "dst_node_id": NODE,
        "reply_to_message_id": "",
        "group_id": "",
        "created_at": time.time(),
        "ttl": 60.0,
        "message_type": "train",
    }
    message = make_message(Metadata(**facts), content or content_of())
    objects = {key: one.deflate() for key, one in get_all_nested_objects(message).items()}
    tree = get_object_tree(message)
    announced = message_to_proto(message)
    announced.metadata.message_id = message.object_id
    for name, value in changes.items():
        setattr(announced.metadata, name, value)
    return announced, tree, objects


def opened(announced, tree, clock_ahead_s=0.0):
    return open_letter(announced, tree, node_id=NODE, clock_ahead_s=clock_ahead_s)


def arrived(letter, objects, **bounds):
    arrival = Arrival(letter, **bounds)
    for key in list(arrival.missing):
        arrival.put(key, objects[key])
    assert not list(arrival.missing)
    return arrival


def object_of(kind: str, body: bytes, *children: str) -> tuple[str, bytes]:
    content = f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body
    return hashlib.sha256(content).hexdigest(), content


def tree_of(*path: tuple[str, bytes]) -> ObjectTree:
    """A tree that is a line, from the message down."""
    (key, _), *rest = path
    return ObjectTree(object_id=key, children=[tree_of(*rest)] if rest else [])
