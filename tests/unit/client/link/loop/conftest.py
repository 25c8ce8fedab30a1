"""The loop against a server on loopback and a trainer in a process."""

import logging

import pytest

from federation_papers import Papers, identity_of
from fleet_server import FleetServer
from hilum.client.link import loop as loop_module
from hilum.client.link.trainer import Trainer
from link_loop import Running, WarmTrainer


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    trainer = WarmTrainer(tmp_path_factory.mktemp("trainer"))
    yield trainer
    Trainer.stop(trainer)


@pytest.fixture
def warm(kept):
    (kept.folder / "taken").unlink(missing_ok=True)
    kept.start()  # in this thread, which outlives the loop's
    return kept


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(loop_module, "_FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(loop_module, "_MAX_WAIT_S", 0.4)
    monkeypatch.setattr(loop_module, "HEARTBEAT_S", 0.2)


@pytest.fixture
def papers(tmp_path):
    return Papers(tmp_path / "federation")


@pytest.fixture
def server(papers):
    with FleetServer(papers) as made:
        yield made


@pytest.fixture
def start(papers, server, tmp_path, warm):
    made = []

    def run(read_papers=None, port=None, **kinds):
        if read_papers is None:
            identity = identity_of(papers, f"localhost:{port or server.port}")
            read_papers = lambda: identity  # noqa: E731 - two words for one value
        made.append(Running(tmp_path, warm, read_papers, **kinds))
        return made[-1]

    yield run
    for one in made:
        one.stop()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "hilum")
    return lambda: caplog.messages
