"""What `hilum site pull` and `hilum site receive` do is done without a command: a call that gives a frozen value."""

import threading
from contextlib import contextmanager

import pytest

from hilum.client.intake.arrivals import pull_and_index, receive_and_index
from hilum.client.intake.network.pull_options import PullRequest
from hilum.client.intake.network.receive_options import listening
from hilum.client.state.workspace import Workspace
from hilum.common.errors import RunError
from hilum.common.progress import NullProgress


@contextmanager
def silent(_title, _total):
    yield NullProgress()


def test_a_pull_gives_what_it_did_to_the_inbox_and_to_the_catalogue(serve, tmp_path):
    request, workspace = PullRequest(serve().url), Workspace(tmp_path)
    done = pull_and_index(request, workspace, silent, threading.Event(), reserve_bytes=0)
    assert (done.pull.listed, done.pull.fetched, done.pull.failed) == (13, 13, {})
    assert (done.index.counts.instances, done.index.decoded) == (13, 13)


def test_a_pull_that_is_asked_to_stop_says_how_to_go_on(serve, tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(RunError, match="run again to go on"):
        pull_and_index(PullRequest(serve().url), Workspace(tmp_path), silent, stop, reserve_bytes=0)


def test_a_receiver_that_is_asked_to_stop_gives_its_report(tmp_path):
    where = listening(
        port=0,
        bind="127.0.0.1",
        ae_title="HILUM",
        allow=["PACS@127.0.0.1"],
        tls_cert=None,
        tls_key=None,
        tls_ca=None,
    )
    stop, ports = threading.Event(), []

    def ready(port):
        ports.append(port)
        stop.set()

    report = receive_and_index(
        where,
        Workspace(tmp_path),
        stop,
        max_bytes=1 << 20,
        reserve_bytes=0,
        index_every_s=60.0,
        ready=ready,
        tell=lambda report: None,
        warn=lambda text: None,
    )
    assert ports[0] > 0
    assert (report.stored, report.repeated, report.refused) == (0, 0, {})
