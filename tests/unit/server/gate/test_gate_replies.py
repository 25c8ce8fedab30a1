"""Replies that no honest site sends: each costs its sender the message, and neither the grid's user nor the server anything."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest

from gate_certificates import Federation
from gate_site import (
    SITES,
    Site,
    Trial,
    answer_to,
    connection,
    everything_from,
    head,
    only,
    question,
    refusal,
    weights_record,
)
from hilum.server.gate import MALFORMED, TOO_LARGE, GateBounds, GateGrid
from hilum.server.gate.objects import ArrivingReply, Malformed, TooLarge, children_of, read_object
from places import SUPPORT

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


@contextlib.contextmanager
def running(folder: Path, bounds: GateBounds | None = None) -> Iterator[tuple[Site, GateGrid]]:
    trial = Trial(folder, bounds).start()
    try:
        with trial.gate.grid("run-1", SITES) as grid:
            yield trial.site(), grid
    finally:
        trial.stop()


def push(site: Site, asked: Message, objects: Iterable[Forged]) -> httpx.HTTPStatusError | None:
    """Push objects until one is refused."""
    for one in objects:
        request = PushObjectRequest(
            node=site.node, run_id=asked.metadata.run_id, object_id=one.id, object_content=one.content
        )
        try:
            assert site.fleet.PushObject(request).stored
        except httpx.HTTPStatusError as error:
            return error
    return None


@pytest.mark.parametrize("fault", ["content", "head", "children"])
def test_an_object_that_is_not_what_was_announced_fails_the_reply(tmp_path: Path, fault: str) -> None:
    forged = message(arrays(array([Forged("ArrayChunk", b"1234")])))
    bad = list(forged.all())[0 if fault != "children" else 1]
    if fault == "content":
        bad.content = bad.content[:-1] + b"5"
    elif fault == "head":
        bad.content = b"nothing"
        bad.id = hashlib.sha256(bad.content).hexdigest()
    with running(tmp_path) as (site, grid):
        (message_id,) = grid.push_messages([question()])
        asked = site.read(site.wait())
        tree = forged.tree
        if fault == "children":  # announced without its child
            bad = Forged("ArrayRecord", names_of(w=CHUNK), [CHUNK])
            tree = ObjectTree(object_id=bad.id)
        site.announce(answer_to(asked), tree)
        error = push(site, asked, [bad])
        assert error is not None
        assert refusal(error) == (400, "malformed")
        assert only(grid, message_id).error.code == MALFORMED


def test_a_hostile_reply_that_is_complete_is_an_error_for_the_grids_user(tmp_path: Path) -> None:
    forged = message(arrays(Forged("Array", b"[" * 20_000, [CHUNK])))
    with running(tmp_path) as (site, grid):
        ids = list(grid.push_messages([question(), question(text="another")]))
        asked = site.read(site.wait())
        site.announce(answer_to(asked), forged.tree)
        assert push(site, asked, forged.all()) is None
        site.answer(answer_to(site.read(site.wait())))
        found = {one.metadata.reply_to_message_id: one for one in grid.pull_messages(ids)}
        assert found[ids[0]].error.code == MALFORMED
        assert found[ids[1]].content["facts"]["text"] == "yes"


def test_a_reply_over_its_limit_fails_and_is_freed_at_once(tmp_path: Path) -> None:
    trial = Trial(tmp_path).start()
    try:
        site = trial.site()
        with trial.gate.grid("run-1", SITES) as grid:
            grid.reply_limit("train", MIB)
            (message_id,) = grid.push_messages([Message(weights_record(4), site.node_id, "train", ttl=60)])
            asked = site.read(site.wait())
            forged = message(
                arrays(array([Forged("ArrayChunk", bytes([index]) * 300 * KIB) for index in range(5)]))
            )
            site.announce(answer_to(asked), forged.tree)
            sent = iter(list(forged.all()))
            error = push(site, asked, sent)
            assert error is not None
            assert refusal(error) == (413, "too_large")
            assert len(list(sent)) == len(list(forged.all())) - 4  # the fourth chunk is over the limit
            assert trial.gate._mailbox._sites[SITES[0]].arriving is None
            assert (push(site, asked, sent) or error).response.status_code in {403, 413}
            reply = only(grid, message_id)
            assert reply.error.code == TOO_LARGE
            assert trial.gate._mailbox._messages[message_id].reply is None
            with pytest.raises(httpx.HTTPStatusError) as again:
                site.announce(answer_to(asked))
            assert refusal(again.value) == (413, "too_large")
    finally:
        trial.stop()


def test_an_object_over_the_replys_limit_is_refused_unread(tmp_path: Path) -> None:
    with running(tmp_path) as (site, grid):
        (message_id,) = grid.push_messages([question()])
        asked = site.read(site.wait())
        site.announce(answer_to(asked))
        with connection(site.context, site.port) as tls:
            tls.sendall(head("/v1/fleet/push-object", f"content-length: {66 * KIB}"))  # and nothing more
            assert everything_from(tls).startswith(b"HTTP/1.1 413")
        assert only(grid, message_id).error.code == TOO_LARGE


def test_an_object_that_comes_twice_counts_once() -> None:
    forged = message(arrays(array([CHUNK])))
    reply = ArrivingReply(forged.tree, sum(len(one.content) for one in forged.all()), BOUNDS)
    for one in forged.all():
        reply.put(one.id, one.content)
        reply.put(one.id, one.content)
    assert reply.missing == []


def test_small_messages_have_a_limit_without_being_given_one(tmp_path: Path) -> None:
    with running(tmp_path) as (site, grid):
        fits, large = grid.push_messages([question(), question(text="another")])
        asked = site.read(site.wait())
        site.answer(Message(weights_record(60 * KIB), reply_to=asked))
        reply = Message(weights_record(64 * KIB), reply_to=site.read(site.wait()))
        announced = site.announce(reply)
        with pytest.raises(httpx.HTTPStatusError) as error:
            site.send(reply, announced, at_a_time=1)
        assert refusal(error.value) == (413, "too_large")
        assert only(grid, fits).has_content()
        assert only(grid, large).error.code == TOO_LARGE


@pytest.fixture
def weighed(tmp_path: Path) -> Iterator[tuple[Site, Callable[[str], list[int]]]]:
    """A site at a gate in another process, and what that says of its memory: now, at its worst, and codes of replies."""
    federation = Federation(tmp_path)
    identity = federation.site(SITES[0])
    script = SUPPORT / "gate_server.py"
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), str(MIB)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        stdin, stdout = server.stdin, server.stdout

        def say(line: str) -> list[int]:
            stdin.write(line + "\n")
            stdin.flush()
            return [int(word) for word in stdout.readline().split()]

        site = Site(federation, identity, SITES[0], int(stdout.readline()))
        yield site, say
        site.close()
        stdin.close()


def update(total_bytes: int, chunk_bytes: int) -> tuple[ObjectTree, list[str], Callable[[int], bytes]]:
    """An update that exists one chunk at a time only: its tree, the chunks' ids, and what makes a chunk."""
    filler = bytes(chunk_bytes - 8)

    def content(index: int) -> bytes:
        return f"ArrayChunk  {chunk_bytes}".encode() + b"\0" + index.to_bytes(8) + filler

    ids = [hashlib.sha256(content(index)).hexdigest() for index in range(total_bytes // chunk_bytes)]
    return flat_over(ids), ids, content


def flat_over(ids: list[str]) -> ObjectTree:
    return ObjectTree(object_id="f" * 64, children=[ObjectTree(object_id=one) for one in ids])


@pytest.mark.parametrize("chunk_bytes", [5 * MIB, pytest.param(400 * KIB, marks=pytest.mark.slow)])
def test_an_update_of_800_mb_to_a_study_of_one_costs_the_server_no_memory(
    weighed: tuple[Site, Callable[[str], list[int]]], chunk_bytes: int
) -> None:
    site, say = weighed
    before = say("ask")[0]
    asked = site.read(site.wait())
    tree, ids, content = update(800 * 10**6, chunk_bytes)
    site.announce(answer_to(asked), tree)

    def send(index: int) -> int:
        request = PushObjectRequest(
            node=site.node, run_id=asked.metadata.run_id, object_id=ids[index], object_content=content(index)
        )
        try:
            return site.post("/v1/fleet/push-object", request.SerializeToString()).status_code
        except httpx.TransportError:
            return 0  # closed before all of it was sent

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(send, range(len(ids))))
    now, peak, *codes = say("")
    assert codes == [TOO_LARGE]
    assert statuses.count(200) * chunk_bytes <= MIB
    assert 413 in statuses or chunk_bytes == 5 * MIB
    assert now - before < 32 * MIB
    assert peak - before < 64 * MIB
