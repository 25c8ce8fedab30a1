"""The objects of a hostile reply: of the wrong type, order or number, and trees that no message has."""

import time
from pathlib import Path

import httpx
import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree

from forged_replies import (
    BOUNDS,
    CHUNK,
    KIB,
    MIB,
    Forged,
    array,
    arrays,
    arrived,
    error_code,
    message,
    names_of,
    running,
)
from gate_site import answer_to, only, question, refusal
from hilum.server.gate import MALFORMED, TOO_LARGE
from hilum.server.gate.objects import Malformed, TooLarge, children_of, read_object


def test_a_reply_made_by_hand_as_flower_makes_it_is_read() -> None:
    content = arrived(message(arrays(array([CHUNK])))).content()
    assert isinstance(content, RecordDict)
    assert content["arrays"]["w"].data == b"1234"


def test_a_tree_as_wide_as_a_call_may_be_is_refused_by_its_width_alone() -> None:
    """The event loop waits meanwhile, and with it every other site."""
    leaves = b"\x12\x00" * (BOUNDS.announce_bytes // 2 - 40)
    tree = ObjectTree.FromString(ObjectTree(object_id="0" * 64).SerializeToString() + leaves)
    began = time.process_time()
    with pytest.raises(Malformed):
        children_of(tree, BOUNDS)
    assert time.process_time() - began < 0.05


def test_a_record_with_many_names_is_read_once() -> None:
    body = ConfigRecord({"many": [1] * 10_000}).deflate().split(b"\0", 1)[1]
    record = Forged("ConfigRecord", body)
    names = names_of(**{f"name{number}": record for number in range(300)})
    content = arrived(Forged("Message", b"", [Forged("RecordDict", names, [record])])).content()
    assert isinstance(content, RecordDict)
    assert len(content) == 300
    assert len({id(one) for one in content.values()}) == 1


@pytest.mark.parametrize(
    "forged",
    [
        CHUNK,
        message(array([CHUNK])),
        message(CHUNK),
        message(arrays(CHUNK)),
        message(arrays(array([array([CHUNK])]))),
        message(arrays(array([Forged("ArrayChunk", b"1234", [CHUNK])]))),
        message(arrays(array([CHUNK])), kind="ArrayRecord"),
        message(arrays(array([CHUNK])), kind="Message"),
        message(Forged("ConfigRecord", b"\xff\xff\xff")),
        message(Forged("ConfigRecord", b"", [CHUNK])),
        message(Forged("MetricRecord", b"\x0a\xff")),
        message(arrays(array([CHUNK], arraychunk_ids=[0, 1]))),
        message(arrays(array([CHUNK], arraychunk_ids=[-1]))),
        message(arrays(array([CHUNK], arraychunk_ids=[]))),
        message(arrays(array([CHUNK], arraychunk_ids="0"))),
        message(arrays(array([CHUNK], arraychunk_ids=[0.0]))),
        message(arrays(array([CHUNK], arraychunk_ids=[False]))),
        message(arrays(array([CHUNK], arraychunk_ids=None))),
        message(arrays(array([CHUNK], shape=[-4]))),
        message(arrays(array([CHUNK], shape={"0": 1}))),
        message(arrays(array([CHUNK], dtype=7))),
        message(arrays(array([CHUNK], stype=None))),
        message(arrays(Forged("Array", b"[" * 200_000, [CHUNK]))),
        message(arrays(Forged("Array", b'{"shape":' * 50_000, [CHUNK]))),
        message(arrays(Forged("Array", b"\xff\xfe", [CHUNK]))),
        message(Forged("ArrayRecord", b'{"w": "' + b"0" * 64 + b'"}', [array([CHUNK])])),
        message(Forged("ArrayRecord", b'{"w": ["x"]}', [array([CHUNK])])),
        message(Forged("ArrayRecord", b"[]", [])),
        message(Forged("ArrayRecord", b"{}", [array([CHUNK])])),
        message(Forged("ArrayRecord", b"null", [array([CHUNK])])),
        Forged("Message", b"", []),
        Forged("Message", b"", [Forged("RecordDict", b"{}"), CHUNK]),
        Forged("Message", b"\xff\xff\xff", [Forged("RecordDict", b"{}")]),
    ],
    ids=lambda forged: f"{forged.kind}-{forged.id[:8]}",
)
def test_objects_of_the_wrong_type_or_content_are_an_error_and_not_an_exception(forged: Forged) -> None:
    assert error_code(forged) == MALFORMED


def test_a_chunk_named_a_million_times_does_not_grow() -> None:
    chunk = Forged("ArrayChunk", bytes(30 * KIB))
    assert error_code(message(arrays(array([chunk], arraychunk_ids=[0] * 33)))) == 0
    assert error_code(message(arrays(array([chunk], arraychunk_ids=[0] * 35)))) == TOO_LARGE
    assert error_code(message(arrays(array([chunk], arraychunk_ids=[0] * 100_000)))) == TOO_LARGE


def test_records_that_grow_when_they_are_read_have_a_bound_of_their_own() -> None:
    large = message(Forged("ConfigRecord", bytes(BOUNDS.record_bytes)))
    with pytest.raises(TooLarge):
        arrived(large, limit_bytes=100 * MIB)
    chunks = message(arrays(array([Forged("ArrayChunk", bytes(BOUNDS.record_bytes + 1))])))
    assert error_code(chunks, limit_bytes=100 * MIB) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ArrayChunk  4",
        b"ArrayChunk 4\x001234",
        b"ArrayChunk  4 \x001234",
        b"ArrayChunk  5\x001234",
        b"ArrayChunk  -4\x001234",
        b"ArrayChunk  +4\x001234",
        b"ArrayChunk  4e0\x001234",
        b"ArrayChunk  " + b"9" * 5000 + b"\x001234",
        b"ArrayChunk " + b"0" * 64 + b" 4\x001234",
        b"array  4\x001234",
        b"CustomDataClass  4\x001234",
        b"\xff\xff  4\x001234",
        b"x" * 5 * MIB,
    ],
    ids=range(14),
)
def test_what_does_not_begin_as_an_object_is_refused(content: bytes) -> None:
    with pytest.raises(Malformed):
        read_object(content, ())


def test_an_object_has_the_children_that_were_announced() -> None:
    parent = arrays(array([CHUNK]))
    assert read_object(parent.content, tuple(child.id for child in parent.children)).kind == "ArrayRecord"
    with pytest.raises(Malformed):
        read_object(parent.content, ())
    with pytest.raises(Malformed):
        read_object(parent.content, (CHUNK.id,))


def chain(depth: int) -> ObjectTree:
    tree = ObjectTree(object_id=f"{depth:064x}")
    for level in range(depth - 1):
        tree = ObjectTree(object_id=f"{level:064x}", children=[tree])
    return tree


def flat(nodes: int) -> ObjectTree:
    return ObjectTree(
        object_id="f" * 64, children=[ObjectTree(object_id=f"{index:064x}") for index in range(nodes - 1)]
    )


def in_itself() -> ObjectTree:
    inner = ObjectTree(object_id="a" * 64)
    return ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id="b" * 64, children=[inner])])


def test_trees_are_bounded_in_depth_and_number() -> None:
    assert len(children_of(chain(BOUNDS.tree_depth), BOUNDS)) == BOUNDS.tree_depth
    assert len(children_of(flat(BOUNDS.objects_per_message), BOUNDS)) == BOUNDS.objects_per_message


@pytest.mark.parametrize(
    "tree",
    [
        chain(BOUNDS.tree_depth + 1),
        chain(45),
        flat(BOUNDS.objects_per_message + 1),
        in_itself(),
        ObjectTree(),
        ObjectTree(object_id="A" * 64),
        ObjectTree(object_id="../../etc/passwd"),
        ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id="b" * 63)]),
    ],
    ids=["deep", "deeper", "many", "cycle", "empty", "upper case", "path", "short"],
)
def test_a_tree_that_is_not_flowers_is_refused_and_fails_its_message(
    tmp_path: Path, tree: ObjectTree
) -> None:
    with running(tmp_path) as (site, grid):
        (message_id,) = grid.push_messages([question()])
        reply = answer_to(site.read(site.wait()))
        with pytest.raises(httpx.HTTPStatusError) as error:
            site.announce(reply, tree)
        assert refusal(error.value) == (400, "malformed")
        assert only(grid, message_id).error.code == MALFORMED
        with pytest.raises(httpx.HTTPStatusError) as again:
            site.announce(reply)
        assert refusal(again.value) == (400, "malformed")


def test_a_tree_too_deep_for_any_parser_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as (site, grid):
        grid.push_messages([question()])
        reply = answer_to(site.read(site.wait()))
        metadata = message_to_proto(reply).metadata
        nested = b""
        for _ in range(20_000):
            nested = b"\x12" + _varint(len(nested)) + nested
        tree = ObjectTree(object_id="a" * 64).SerializeToString() + nested
        head = PushMessagesRequest(node=site.node, messages_list=[{"metadata": metadata}])
        response = site.post(
            "/v1/fleet/push-messages", head.SerializeToString() + b"\x1a" + _varint(len(tree)) + tree
        )
        assert (response.status_code, response.text) == (400, "malformed")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
