"""Collecting by itself: every site is asked the same and gives one answer."""

import time

import pytest
from flwr.app import Error

from federated_sites import NAMES, NamedGrid, changed, honest, make_client
from hilum.common import records
from hilum.common.errors import FederationError
from hilum.server.federation.collect import collect
from hilum.server.federation.exchange import Presence, content_of
from hilum.server.federation.roster import Site


@pytest.fixture
def ask(make_study, make_order, small_model):
    def collected(train=None, *, federation=None, **changes):
        study = make_study(federation=federation or {})
        request = records.pack_training_request(make_order(study)[0], 1, small_model.base)
        with NamedGrid(make_client(train)) as grid:
            collected.grid = grid
            sites = [Site(name, node_id, 10) for node_id, name in grid.names.items()]
            facts = {"enough": lambda: False, "poll_s": 0.005, "on_poll": lambda: None, **changes}
            presence = Presence(grid)
            yield from collect(grid, sites, request, federation=study.federation, presence=presence, **facts)

    return collected


def test_each_site_answers_once_from_the_weights_that_were_sent(ask, small_model):
    found = {site.name: records.unpack_training_reply(content_of(answer)) for site, answer in ask()}
    assert sorted(found) == list(NAMES)
    assert all(reply.site == name and reply.round_number == 1 for name, reply in found.items())
    assert found["site-1"].update.shape == small_model.base.shape


def test_an_answer_is_handed_on_as_it_came(ask):
    answers = {
        "site-0": lambda name, request: Error(code=2, reason="x"),
        "site-1": lambda name, request: records.Refusal(name, "data"),
        "site-2": changed(loss=float("nan")),
    }
    found = {site.name: answer for site, answer in ask(answers)}
    assert str(found["site-0"].problem).startswith("failed: ")
    assert records.unpack_refusal(found["site-1"].content).code == "data"
    assert found["site-2"].problem is None


def test_what_a_look_raises_ends_the_round_and_its_messages_are_taken_back(ask):
    looks = []

    def stop():
        looks.append(1)
        if len(looks) > 1:
            raise FederationError("asked to stop")

    def slow(name, request):
        time.sleep(0.3)
        return honest(name, request)

    with pytest.raises(FederationError, match="asked to stop"):
        list(ask(dict.fromkeys(NAMES, slow), on_poll=stop))
    assert len(ask.grid.withdrawn) == 3
