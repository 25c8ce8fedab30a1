"""What a server that means harm may send as a message, and that a reply survives the way back."""

import hashlib
import json
import time

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from hilum.client.link.letters import (
    MAX_MESSAGE_BYTES,
    MAX_OBJECTS,
    Arrival,
    Malformed,
    open_letter,
    pack_reply,
    read_request,
    refusal,
)
from hilum.client.link.start import most_message_bytes
from hilum.common import records
from hilum.common.config.site import PolicySection
from hilum.common.footprint import footprint_of
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


@pytest.mark.parametrize("size_bytes", [0, 1000, LARGE])
def test_an_honest_message_arrives_whole(size_bytes):
    content = content_of(size_bytes)
    announced, tree, objects = request(content)
    letter = opened(announced, tree)
    message = read_request(letter, arrived(letter, objects).objects)
    assert message.content == content
    assert (letter.kind, letter.run_id) == ("train", 7)
    assert 59 < letter.ends_s - time.monotonic() <= 60


def test_repeated_chunks_of_zeros_arrive_whole():
    zeros = Array("float32", (LARGE // 4,), "hilum.flat", bytes(LARGE))
    twice = RecordDict({"arrays": ArrayRecord({"a": zeros}), "more": ArrayRecord({"b": zeros})})
    announced, tree, objects = request(twice)
    letter = opened(announced, tree)
    assert read_request(letter, arrived(letter, objects).objects).content == twice


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"message_type": "system"}, "type"),
        ({"message_type": "train.with_code"}, "type"),
        ({"message_type": "reconnect"}, "type"),
        ({"dst_node_id": NODE + 2}, "another site"),
        ({"message_id": "../../escaped"}, "id"),
        ({"message_id": ""}, "id"),
        ({"reply_to_message_id": "x"}, "reply"),
        ({"ttl": float("nan")}, "time to live"),
        ({"ttl": float("inf")}, "time to live"),
        ({"ttl": -1.0}, "time to live"),
        ({"ttl": 1e12}, "time to live"),
        ({"created_at": float("-inf")}, "time to live"),
    ],
)
def test_an_announcement_that_is_not_for_this_site_to_work_on_is_malformed(changes, says):
    announced, tree, _ = request(**changes)
    with pytest.raises(Malformed, match=says):
        opened(announced, tree)


def test_an_error_is_not_a_request():
    announced, tree, _ = request()
    announced.ClearField("content")
    announced.error.code = 3
    with pytest.raises(Malformed):
        opened(announced, tree)


def test_content_that_comes_beside_the_objects_is_dropped():
    announced, tree, _ = request(content_of(8))
    assert announced.HasField("content")
    letter = opened(announced, tree)
    assert not letter.metadata.HasField("content")


def test_a_clock_that_is_wrong_here_changes_no_deadline():
    announced, tree, objects = request(
        created_at=time.time() - 1200 - 20, ttl=60.0
    )  # this clock is 20 minutes ahead
    letter = opened(announced, tree, clock_ahead_s=1200.0)
    assert 39 < letter.ends_s - time.monotonic() < 41
    message = read_request(letter, arrived(letter, objects).objects)
    assert abs(message.metadata.created_at - (time.time() - 20)) < 1
    reply, _, _ = pack_reply(letter, content_of())
    assert abs(reply.metadata.created_at - (time.time() - 1200)) < 1  # the server's clock again
    assert 38 < reply.metadata.ttl < 41


def line(levels: int) -> ObjectTree:
    root = node = ObjectTree(object_id="0" * 64)
    for level in range(1, levels):
        node = node.children.add(object_id=f"{level:064x}")
    return root


def wide(children: int) -> ObjectTree:
    return ObjectTree(
        object_id="f" * 64, children=[ObjectTree(object_id=f"{number:064x}") for number in range(children)]
    )


def in_itself() -> ObjectTree:
    return ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id="a" * 64)])


@pytest.mark.parametrize(
    "tree",
    [
        line(6),
        line(90),
        wide(MAX_OBJECTS),
        in_itself(),
        ObjectTree(),
        ObjectTree(object_id="../x"),
        ObjectTree(object_id="A" * 64),
        ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id="b" * 63)]),
    ],
    ids=["deep", "very deep", "wide", "cycle", "empty", "path", "capitals", "short"],
)
def test_a_tree_that_is_not_a_messages_is_malformed(tree):
    announced, _, _ = request()
    with pytest.raises(Malformed):
        opened(announced, tree)


def test_a_tree_within_the_bounds_is_walked_children_first():
    announced, tree, objects = request(content_of(LARGE))
    assert line(5).object_id in opened(announced, line(5)).children
    order = list(opened(announced, tree).children)
    assert order[-1] == tree.object_id
    assert set(order) == set(objects)


def test_another_object_than_asked_for_is_malformed():
    announced, tree, objects = request()
    arrival = Arrival(opened(announced, tree))
    first, second, *_ = arrival.missing
    with pytest.raises(Malformed, match="asked for"):
        arrival.put(first, objects[second])
    with pytest.raises(Malformed, match="asked for"):
        arrival.put(first, objects[first] + b" ")


def test_a_message_that_is_larger_than_the_site_takes_is_stopped_at_the_object_that_is_too_much():
    announced, tree, objects = request(content_of(LARGE))
    letter = opened(announced, tree)
    arrived(letter, objects, at_most_bytes=sum(map(len, objects.values())))
    arrival, taken = Arrival(letter, at_most_bytes=LARGE // 2), []

    def take_all():
        for key in list(arrival.missing):
            arrival.put(key, objects[key])
            taken.append(key)

    with pytest.raises(Malformed, match="larger"):
        take_all()
    assert sum(len(objects[key]) for key in taken) <= LARGE // 2


def test_an_object_larger_than_flowers_is_malformed():
    refuse("larger", object_of("ArrayChunk", bytes(6 * 2**20)))


def test_many_records_together_are_no_larger_than_a_request_needs():
    many = RecordDict(
        {f"facts{number}": ConfigRecord({"x": bytes(1_000_000) + bytes([number])}) for number in range(5)}
    )
    announced, tree, objects = request(many)
    with pytest.raises(Malformed, match="larger than its type needs"):
        arrived(opened(announced, tree), objects)


def test_an_array_that_names_its_chunk_a_million_times_is_never_put_together():
    """5 MB and 400 kB on the wire would be 1 TB in memory."""
    chunk = object_of("ArrayChunk", bytes(5 * 2**20))
    facts = {"dtype": "float32", "shape": [1], "stype": "hilum.flat", "arraychunk_ids": [0] * 200_000}
    refuse("larger", object_of("Array", json.dumps(facts).encode(), chunk[0]), chunk)


ABOVE = {"ArrayChunk": "Array", "Array": "ArrayRecord", "RecordDict": "Message"}


def refuse(says, *path):
    """The first of a line of objects is refused, where all around it is as it should be."""
    whole = list(path)
    while (kind := whole[0][1].split(b" ")[0].decode(errors="replace")) != "Message":
        whole.insert(0, object_of(ABOVE.get(kind, "RecordDict"), b"", whole[0][0]))
    announced, _, _ = request()
    arrival = Arrival(opened(announced, tree_of(*whole)))
    (key, content), *below = path
    for other, inner in reversed(below):
        arrival.put(other, inner)
    with pytest.raises(Malformed, match=says):
        arrival.put(key, content)


CHUNK = object_of("ArrayChunk", b"1234")
CONFIG = object_of("ConfigRecord", b"")
RECORDS = object_of("RecordDict", b"{}", CONFIG[0])


@pytest.mark.parametrize(
    ("says", "path"),
    [
        ("head", [object_of("CustomDataClass", b"", CONFIG[0]), CONFIG]),
        ("head", [object_of("__import__", b"")]),
        ("belong", [object_of("RecordDict", b"{}", CHUNK[0]), CHUNK]),
        ("belong", [object_of("Message", b"", CONFIG[0]), CONFIG]),
        ("belong", [object_of("ConfigRecord", b"", CHUNK[0]), CHUNK]),
        ("one message", [object_of("Message", b"")]),
        ("made of", [object_of("Array", b"[" * 100_000, CHUNK[0]), CHUNK]),
        ("made of", [object_of("Array", b'{"arraychunk_ids": [1]}', CHUNK[0]), CHUNK]),
        ("made of", [object_of("Array", b'{"arraychunk_ids": "no"}', CHUNK[0]), CHUNK]),
        ("made of", [object_of("Array", b'{"arraychunk_ids": 3}', CHUNK[0]), CHUNK]),
        ("made of", [object_of("Array", b"{}", CHUNK[0]), CHUNK]),
        ("made of", [object_of("Array", b"\xff", CHUNK[0]), CHUNK]),
        ("type needs", [object_of("ConfigRecord", bytes(2**20))]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0][1][:16].decode(errors="replace"),
)
def test_objects_that_do_not_make_a_message_are_malformed(says, path):
    refuse(says, *path)


def test_the_root_is_a_message_and_nothing_else_is():
    announced, _, _ = request()
    arrival = Arrival(opened(announced, tree_of(RECORDS, CONFIG)))
    arrival.put(*CONFIG)
    with pytest.raises(Malformed, match="one message"):
        arrival.put(*RECORDS)
    inner = object_of("Message", b"", RECORDS[0])
    arrival = Arrival(opened(announced, tree_of(object_of("Message", b"", inner[0]), inner, RECORDS, CONFIG)))
    arrival.put(*CONFIG)
    arrival.put(*RECORDS)
    with pytest.raises(Malformed, match="one message"):
        arrival.put(*inner)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"ArrayChunk  4 1234",
        b"ArrayChunk  5\x001234",
        b"ArrayChunk  -4\x001234",
        b"ArrayChunk  " + b"9" * 60 + b"\x001234",
        b"ArrayChunk " + b"a" * 64 + b" 4\x001234",
        b"ArrayChunk 4\x001234",
        b"\xff\xff  4\x001234",
    ],
)
def test_an_object_with_a_wrong_head_is_malformed(content):
    refuse("head", (hashlib.sha256(content).hexdigest(), content))


@pytest.mark.parametrize("size_bytes", [1000, LARGE])
def test_a_reply_comes_out_as_it_went_in(size_bytes):
    announced, tree, _ = request()
    letter = opened(announced, tree)
    content = content_of(size_bytes)
    message, reply_tree, objects = pack_reply(letter, content)
    sent = {key: one.deflate() for key, one in objects.items()}
    assert {hashlib.sha256(value).hexdigest() for value in sent.values()} == set(sent)
    inflated = inflate_object_from_contents(reply_tree.object_id, sent)
    assert inflated.content == content
    facts = message.metadata
    assert facts.message_id == reply_tree.object_id
    assert facts.reply_to_message_id == letter.message_id
    assert (facts.src_node_id, facts.dst_node_id, facts.run_id) == (NODE, 1, 7)
    assert facts.message_type == "train"
    assert not message.content.items  # the announcement holds no content


def test_a_refusal_is_a_reply_with_a_listed_code():
    announced, tree, _ = request()
    reply = refusal(opened(announced, tree), "site-a", "trainer_died")
    inflated = inflate_object_from_contents(reply.tree.object_id, dict(reply.objects))
    assert records.unpack_refusal(inflated.content) == records.Refusal("site-a", "trainer_died")
    assert reply.size_bytes == sum(map(len, reply.objects.values()))


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_a_site_of_little_memory_takes_no_message_of_a_study_that_it_could_not_train(make_study, size):
    study = make_study(encoder={"size": size})
    needed = footprint_of(study)
    policy = PolicySection(max_memory_gb=needed.memory_bytes / 1e9)
    assert 2 * needed.update_bytes < most_message_bytes(policy) < MAX_MESSAGE_BYTES
    assert most_message_bytes(PolicySection(max_memory_gb=1)) < 2**28
