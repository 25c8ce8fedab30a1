"""A hostile reply that is pushed: refused, failed and freed, and no heavier than its limit."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from flwr.app import Message
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest

from forged_replies import BOUNDS, CHUNK, KIB, MIB, Forged, array, arrays, message, names_of, running
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
from hilum.server.gate import MALFORMED, TOO_LARGE
from hilum.server.gate.objects import ArrivingReply
from places import SUPPORT


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
