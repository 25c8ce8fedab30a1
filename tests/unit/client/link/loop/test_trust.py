"""A server that means harm, and papers that end."""

import time
from datetime import timedelta

from flwr.proto import fleet_pb2

from federation_papers import Papers, link_of, server_context
from fleet_server import FleetServer, http
from hilum.client.link.identity import read_identity
from hilum.client.link.loop import LinkEnded
from hilum.common import records
from link_loop import LARGE, request, wait_for_line

# A server that means harm.


def test_a_message_that_is_too_large_is_refused_before_all_of_it_came(server, start, lines):
    running = start(at_most_bytes=8 * 2**20)
    answer = server.answer_to(server.say(request("large", LARGE)))
    assert records.unpack_refusal(answer) == records.Refusal("site-a", "wrong_format")
    wait_for_line(lines, "larger than this site takes")
    assert len(server.pulled) <= 3
    assert running.taken() == []


def test_a_lying_object_is_refused(server, start):
    running = start()
    message = server.say(request("echo", 10**6))
    largest = max(server.objects, key=lambda key: len(server.objects[key]))
    server.objects[largest] = server.objects[largest][:-1] + b"x"
    assert records.unpack_refusal(server.answer_to(message)).code == "wrong_format"
    assert running.taken() == []


def test_a_message_for_another_site_is_not_even_fetched(server, start, lines):
    running = start()
    content = request()
    server.node_id += 2
    server.say(content)
    server.node_id -= 2
    wait_for_line(lines, "a message was not taken: it is addressed to another site")
    assert server.pulled == []
    server.answer_to(server.say(request("next")))
    assert running.taken() == ["next"]


def test_bundles_and_runs_are_neither_asked_for_nor_opened(server, start, tmp_path):
    """What a server adds to an answer, in fields that this protocol does not have, is ignored."""
    field = bytes([0x7A, 5]) + b"PK\x03\x04x"  # field 15: a bundle, as far as anyone can tell

    def with_bundle(_server, body):
        return server.pull_messages(body) + field

    server.script["pull-messages"] = with_bundle
    server.script["activate-node"] = lambda _, body: server.activate_node(body) + field
    start()
    assert server.answer_to(server.say(request()))["did"]["do"] == "echo"
    allowed = {
        "activate-node",
        "send-node-heartbeat",
        "pull-messages",
        "pull-object",
        "confirm-message-received",
    }
    assert set(server.calls) <= {*allowed, "push-messages", "push-object", "deactivate-node"}


def test_a_server_that_asks_for_what_was_never_announced_gets_nothing(server, start, lines):
    odd = fleet_pb2.PushMessagesResponse(objects_to_push=["../../etc/passwd"]).SerializeToString()
    server.script["push-messages"] = lambda *_: odd
    start()
    server.say(request(), ttl=2.0)
    wait_for_line(lines, "never announced")
    assert "push-object" not in server.calls


# Papers that end.


def test_another_federations_server_ends_the_link_for_good(papers, start, tmp_path):
    other = Papers(tmp_path / "other", "other")
    with FleetServer(other, tls=server_context(other)) as foreign:
        running = start(port=foreign.port)
        running.thread.join(10)
        assert isinstance(running.ended, LinkEnded)
        assert "not of this federation" in str(running.ended)


def test_another_server_on_a_known_address_is_waited_out(papers, server, start, lines, tmp_path):
    running = start()
    server.answer_to(server.say(request()))
    port = server.port
    server.close()
    other = Papers(tmp_path / "other", "other")
    with FleetServer(other, tls=server_context(other), port=port):
        wait_for_line(lines, "not of this federation")
    with FleetServer(papers, port=port) as back:
        back.answer_to(back.say(request("next")))
    assert running.ended is None


def test_a_loop_that_was_started_again_remembers_that_it_knew_the_server(
    papers, server, start, lines, tmp_path
):
    first = start()
    wait_for_line(lines, "connected")
    first.stop()
    server.close()
    other = Papers(tmp_path / "other", "other")
    with FleetServer(other, tls=server_context(other), port=server.port):
        running = start()
        wait_for_line(lines, "not of this federation")
        time.sleep(0.3)
        assert running.ended is None


def test_an_expired_certificate_ends_the_link_for_good(papers, server, start, lines):
    short = papers.site(ends=timedelta(seconds=1.5))
    link = link_of(papers, f"localhost:{server.port}", short)
    running = start(read_papers=lambda: read_identity(link, "site-a"))
    wait_for_line(lines, "this site's certificate ends in 0 days")
    time.sleep(1.6)
    server.script["pull-messages"] = lambda *_: http(401)
    running.thread.join(10)
    assert isinstance(running.ended, LinkEnded)
    assert "this site's certificate expired" in str(running.ended)


def test_a_certificate_that_was_renewed_in_time_is_taken_up(papers, server, start, lines):
    short = papers.site(ends=timedelta(seconds=2))
    link = link_of(papers, f"localhost:{server.port}", short)
    start(read_papers=lambda: read_identity(link, "site-a"))
    server.answer_to(server.say(request()))
    papers.site()  # `hilum site join` puts the new one in the same place
    time.sleep(2.1)
    server.script["pull-messages"] = lambda *_: http(401)
    wait_for_line(lines, "certificate expired")  # the one that the loop has; it then finds the new one
    del server.script["pull-messages"]
    server.answer_to(server.say(request("next")))


def test_a_certificate_that_was_renewed_is_taken_up_and_not_asked_for_again(papers, server, start, lines):
    short = papers.site(ends=timedelta(days=3))
    link = link_of(papers, f"localhost:{server.port}", short)

    def read_papers():
        found = read_identity(link, "site-a")
        papers.site()  # `hilum site join`, right after
        return found

    start(read_papers=read_papers)
    server.answer_to(server.say(request()))
    wait_for_line(lines, "connected")
    assert not any("this site's certificate ends" in line for line in lines())
