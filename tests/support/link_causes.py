"""Why a call to a server of a test's own failed."""

import socket
import threading
from contextlib import contextmanager
from datetime import timedelta

import pytest

from federation_papers import identity_of
from hilum.client.link.explain import Patience, explain
from hilum.client.link.fleet_client import CallError, FleetClient

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def cause_at(identity, **about):
    client = FleetClient(identity)
    try:
        with pytest.raises(CallError) as failed:
            client.activate()
    finally:
        client.close()
    return explain(failed.value, identity, client.proxy, **about)


def cause_of(papers, server, **about):
    return cause_at(identity_of(papers, f"localhost:{server.port}"), **about)


@contextmanager
def listening(answer):
    """A TCP port where `answer` has each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def says(cause, code, *words, patience=Patience.SLOWLY):
    assert cause.code == code, cause
    assert cause.patience is patience
    assert "\n" not in cause.text
    for word in words:
        assert word in cause.text
    return True
