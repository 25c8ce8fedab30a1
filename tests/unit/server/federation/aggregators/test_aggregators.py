"""Aggregators by themselves: sums by hand, an independent reference, and what they remember."""

import itertools
from typing import get_args

import numpy as np
import pytest
import torch

from hilum.common.config.aggregators import AggregatorConfig, FedAvgConfig, FedAvgMConfig
from hilum.common.config.study import FederationSection
from hilum.common.weights import Manifest, difference
from hilum.server.federation.aggregators.base import AggregatorSpec, UpdateFacts
from hilum.server.federation.aggregators.fedavg import FedAvg
from hilum.server.federation.aggregators.fedavgm import FedAvgM
from hilum.server.federation.aggregators.registry import AGGREGATORS, build_aggregator
from places import ROOT

MANIFEST = Manifest((("a", (2,)), ("b", (2, 2))))
CONFIGS = [section.model_fields["name"].annotation for section in get_args(get_args(AggregatorConfig)[0])]
NAMES = [get_args(annotation)[0] for annotation in CONFIGS]


def facts(site="site-0", examples=1):
    return UpdateFacts(site, examples, loss=1.0, norm=1.0)


def round_of(aggregator, state, *updates):
    """One round of updates, each with its weight."""
    aggregator.begin(MANIFEST, state)
    for update, weight in updates:
        aggregator.add(np.asarray(update, np.float32), weight, facts(examples=weight))
    return aggregator.finish()


def random_rounds(count, sites=3):
    """Updates on the grid, as sites send them, with their weights."""
    rng = np.random.default_rng(5)
    zero = np.zeros(MANIFEST.size, np.float32)
    return [
        [
            (difference(rng.normal(0, 0.1, MANIFEST.size).astype(np.float32), zero), int(weight))
            for weight in rng.integers(1, 100, sites)
        ]
        for _ in range(count)
    ]


def build(name, **parameters):
    config = FederationSection.model_validate({"aggregator": {"name": name, **parameters}}).aggregator
    return build_aggregator(config, most_weight=300)


def test_the_registry_has_what_a_study_can_choose_and_the_reference_tells_it():
    assert sorted(AGGREGATORS) == sorted(NAMES)
    text = (ROOT / "docs" / "reference" / "study.md").read_text()
    for name, spec in AGGREGATORS.items():
        assert build(name).spec is spec
        assert f"| `{name}` ([{spec.paper}]" in text


def test_what_an_aggregator_holds_grows_with_the_sites_only_where_it_holds_all_updates():
    assert FedAvg.spec.memory_bytes(1000, 2) == FedAvg.spec.memory_bytes(1000, 50) == 16_000
    median = AggregatorSpec("median", "arXiv 1803.01498", (), 12, update_bytes=12)
    assert median.memory_bytes(1000, 50) == 12_000 + 12 * 1000 * 50


def test_federated_averaging_is_the_weighted_mean_and_remembers_nothing():
    found = round_of(FedAvg(FedAvgConfig(name="fedavg"), 300), {}, (np.full(6, 1.0), 1), (np.full(6, 4.0), 2))
    assert found.change.tolist() == [3.0] * 6
    assert found.state == {}


def test_momentum_by_hand():
    aggregator = FedAvgM(FedAvgMConfig(name="fedavgm", momentum=0.5, learning_rate=2.0), 300)
    first = round_of(aggregator, {}, (np.full(6, 1.0), 1), (np.full(6, 4.0), 2))
    assert first.change.tolist() == [6.0] * 6
    second = round_of(aggregator, first.state, (np.full(6, -1.0), 5))
    assert second.state["momentum"].tolist() == [0.5] * 6, "half of 3, less 1"
    assert second.change.tolist() == [1.0] * 6
    assert second.state["momentum"].dtype == np.float32


def test_momentum_is_the_stochastic_gradient_descent_of_torch_along_the_mean_update():
    """Reference: torch.optim.SGD in float64, the gradient being the update turned round, and numpy's mean.

    v is kept in float32: half a unit in the last place (2**-24) each round, which momentum sums up to ten times that, and
    the learning rate hands on; the changes are below 1.
    """
    weights = torch.zeros(MANIFEST.size, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=0.7, momentum=0.9)
    state, moved = {}, np.zeros(MANIFEST.size)
    for number, updates in enumerate(random_rounds(20), 1):
        found = round_of(
            FedAvgM(FedAvgMConfig(name="fedavgm", momentum=0.9, learning_rate=0.7), 300), state, *updates
        )
        state, moved = found.state, moved + found.change
        arrays, sizes = zip(*updates, strict=True)
        mean = np.average(np.array(arrays, np.float64), axis=0, weights=sizes)
        weights.grad = torch.from_numpy(-mean)
        optimizer.step()
        assert np.abs(moved - weights.detach().numpy()).max() < number * 10 * 2.0**-24


def test_without_momentum_it_is_federated_averaging_bit_for_bit():
    state = {}
    for updates in random_rounds(4):
        found = round_of(
            FedAvgM(FedAvgMConfig(name="fedavgm", momentum=0.0, learning_rate=1.0), 300), state, *updates
        )
        assert (
            found.change.tobytes()
            == round_of(FedAvg(FedAvgConfig(name="fedavg"), 300), {}, *updates).change.tobytes()
        )
        state = found.state


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_arrival_changes_no_bit(name):
    (earlier, updates) = random_rounds(2)
    state = round_of(build(name), {}, *earlier).state
    found = [round_of(build(name), state, *order) for order in itertools.permutations(updates)]
    assert len({one.change.tobytes() for one in found}) == 1
    assert len({tuple(array.tobytes() for array in one.state.values()) for one in found}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_round_without_an_update_is_none_and_what_is_remembered_has_the_names_of_the_spec(name):
    with pytest.raises(ValueError, match="no update was added"):
        round_of(build(name), {})
    state = round_of(build(name), {}, (np.ones(6), 1)).state
    assert tuple(state) == AGGREGATORS[name].state
    assert all(array.dtype == np.float32 for array in state.values())
