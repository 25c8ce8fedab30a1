"""The loop's seams with another user than the ordinary step: nobody drawn, cuts out of volumes, a method's teacher."""

import numpy as np
import pytest
import torch

from hilum.client.data.prepared import cut
from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.loop import RoundPlace, train_round
from hilum.client.pretraining.mechanisms import MECHANISMS, Mechanism
from hilum.client.pretraining.sampling import Draws
from hilum.client.pretraining.step import PendingOutcome
from hilum.common.methods import build_method
from hilum.common.methods.mae import MAE
from hilum.common.progress import NullProgress


class Planned:
    """A sampler whose second step draws nobody, and whose images are cut out of larger arrays."""

    def __init__(self, origins):
        self.origins = origins

    def plan(self, seed, site, round_number):
        one = Draws(np.array([0, 1, 1]), np.array([7, 8, 8]), self.origins)
        return [(one,), (), (one, one)]


class Noted:
    """A step that moves nothing and notes what it was given."""

    def __init__(self, seen):
        self.seen = seen

    def __call__(self, batches, sizes):
        given = list(batches)
        assert [len(one.views.groups["image"]) for one in given] == sizes
        self.seen += [given]
        told = torch.tensor([float(len(given)), 0.5, 0.0])
        return PendingOutcome(("", "part half"), told, None) if given else None


@pytest.fixture
def larger():
    images = np.random.default_rng(0).integers(0, 65_535, (2, 1, 40, 40)).astype(np.uint16)
    rows = np.arange(2)
    return SiteData("a", images, (None, None), Split(rows, rows, rows[:0], rows + 7), "digest")


def run(study, data, monkeypatch, *, origins, seen, method=None):
    mechanism = Mechanism(lambda *_: Planned(origins), lambda *_: Noted(seen))
    monkeypatch.setitem(MECHANISMS, "none", mechanism)
    return train_round(
        method or build_method(study),
        data,
        study,
        RoundPlace("a", 1, ""),
        make_fabric("cpu", "fp32", 1),
        NullProgress(),
    )


def test_a_step_that_draws_nobody_is_taken_and_counts_for_no_mean(make_study, larger, monkeypatch):
    seen = []
    origins = np.array([[0, 0], [3, 5], [20, 20]])
    outcome = run(make_study(), larger, monkeypatch, origins=origins, seen=seen)
    assert [len(batches) for batches in seen] == [1, 0, 2]
    assert (outcome.loss, outcome.steps, outcome.parts) == (1.5, 2, {"half": 0.5})


def test_a_step_knows_whose_images_it_sees(make_study, larger, monkeypatch):
    seen = []
    run(make_study(), larger, monkeypatch, origins=None, seen=seen)
    assert seen[0][0].views.patients.tolist() == [7, 8, 8]


def test_origins_cut_an_image_out_of_a_larger_array(larger):
    found = cut(larger.images, np.array([1, 0]), np.array([[3, 5], [20, 0]]), 20)
    assert np.array_equal(found[0], larger.images[1, :, 3:23, 5:25])
    assert np.array_equal(found[1], larger.images[0, :, 20:40, 0:20])
    assert np.array_equal(cut(larger.images, np.array([1]), None, 20), larger.images[1:])


def test_a_method_is_told_after_each_step_how_far_the_study_is(make_study, larger, monkeypatch):
    told = []
    monkeypatch.setattr(MAE, "after_step", lambda _, done: told.append(done))
    run(make_study(federation={"rounds": 2}), larger, monkeypatch, origins=None, seen=[])
    assert told == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_simclr_tells_how_near_its_views_are(make_study, larger):
    study = make_study(method={"name": "simclr"}, training={"batch_size": 2})
    outcome = train_round(
        build_method(study),
        larger,
        study,
        RoundPlace("a", 1, ""),
        make_fabric("cpu", "fp32", 1),
        NullProgress(),
    )
    assert -1 <= outcome.health["alignment"] <= 1
    assert torch.isfinite(torch.tensor(outcome.loss))
