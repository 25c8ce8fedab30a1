"""Which messages a site works on, judged by what announces them; and its replies."""

import hashlib
import time

import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from hilum.client.link.letters import (
    MAX_MESSAGE_BYTES,
    MAX_OBJECTS,
    Malformed,
    pack_reply,
    read_request,
    refusal,
)
from hilum.client.link.start import most_message_bytes
from hilum.common import records
from hilum.common.config.site import PolicySection
from hilum.common.footprint import footprint_of
from letters_by_hand import LARGE, NODE, arrived, content_of, opened, request


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
