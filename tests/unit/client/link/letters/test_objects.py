"""The objects of a message: each the one that was asked for, and together no more than a message needs."""

import hashlib
import json

import pytest
from flwr.app import ConfigRecord, RecordDict

from hilum.client.link.letters import Arrival, Malformed
from letters_by_hand import LARGE, arrived, content_of, object_of, opened, request, tree_of


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
