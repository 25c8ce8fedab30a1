"""Aggregating by itself: one pass over the admitted updates, with an aggregator of the test's own."""

import weakref

import numpy as np
import pytest

from hilum.common.weights import Manifest
from hilum.server.federation.admission import Admitted
from hilum.server.federation.aggregate import aggregate
from hilum.server.federation.aggregators.base import Aggregated, AggregatorSpec, UpdateFacts

MANIFEST = Manifest((("first", (2,)), ("last", (2,))))


class LastLayersLargest:
    """Counts rounds, and of each layer takes the update with the largest value in it: no sum could do that."""

    spec = AggregatorSpec("largest", "none", ("rounds",), 4)

    def begin(self, manifest, state):
        self.manifest, self.rounds = manifest, state.get("rounds", np.zeros(1, np.float32))
        self.layers = manifest.unflatten(np.full(manifest.size, -np.inf, np.float32))

    def add(self, update, weight, facts):
        for name, layer in self.manifest.unflatten(update).items():
            if layer.max() > self.layers[name].max():
                self.layers[name] = layer * weight

    def finish(self):
        change = self.manifest.flatten(self.layers).astype(np.float64)
        return Aggregated(change, {"rounds": self.rounds + 1})


def admitted(name, *values, weight=1):
    return Admitted(np.float32(values), weight, UpdateFacts(name, weight, 1.0, 1.0))


def test_layers_may_be_weighed_by_themselves_and_what_is_remembered_is_handed_on():
    updates = [admitted("a", 1, 0, 0, 0, weight=3), admitted("b", 0, 0, 2, 5)]
    found = aggregate(LastLayersLargest(), MANIFEST, {}, updates, quorum=2)
    assert found.change.tolist() == [3, 0, 2, 5]
    again = aggregate(LastLayersLargest(), MANIFEST, found.state, updates, quorum=1)
    assert again.state["rounds"].tolist() == [2]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_the_quorum_give_nothing(count):
    updates = [admitted("a", 1, 1, 1, 1)] * count
    assert aggregate(LastLayersLargest(), MANIFEST, {}, updates, quorum=2) is None


def test_an_update_is_let_go_before_the_next_is_asked_for():
    alive = []

    def updates():
        for name in "abc":
            assert [one() for one in alive] == [None] * len(alive)
            made = admitted(name, 1, 2, 3, 4)
            alive.append(weakref.ref(made))
            yield made
            del made

    assert aggregate(LastLayersLargest(), MANIFEST, {}, updates(), quorum=3) is not None
    assert len(alive) == 3
