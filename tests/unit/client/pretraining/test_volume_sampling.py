"""The plan of a round over volumes, and training on what it cuts out."""

import numpy as np
import pytest
import torch

from hilum.client.data.site_data import SiteData, pooled
from hilum.client.data.splits import Split
from hilum.client.data.volumes import Volumes, joined
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.loop import RoundPlace, train_round
from hilum.client.pretraining.mechanisms import MECHANISMS
from hilum.client.pretraining.volume_sampling import VolumeEpochs
from hilum.common.methods import build_method
from hilum.common.preparation.pieces import Geometry
from hilum.common.progress import NullProgress
from volume_phantoms import trunk, volumes_of

DATA = {"modality": "ct", "dims": 3, "image_size": 16, "spacing_mm": 2.0, "per_volume": 3}


@pytest.fixture
def study(make_study):
    def make(**changes):
        return make_study(**{"data": DATA, "training": {"batch_size": 4, "local_epochs": 2}, **changes})

    return make


@pytest.fixture
def volumes(make_study, tmp_path):
    data, made = make_study(data=DATA).data, []
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        shape = (20 + 4 * number, 30, 40)
        made.append(volumes_of(trunk(shape, "ct", number), (2.0, 2.0, 2.0), data, tmp_path / str(number)))
    return joined(made)


def site(volumes, name="a"):
    rows = np.arange(len(volumes))
    return SiteData(name, volumes, (None,) * len(rows), Split(rows, rows[:0], rows[:0], rows // 2), "digest")


def epochs(volumes, **changes):
    options = {"per_volume": 3, "batch_size": 4, "accumulate": 1, "epochs": 2, **changes}
    return VolumeEpochs(volumes, np.arange(1, len(volumes)), np.arange(len(volumes)) // 2, **options)


def flat(plan):
    return [
        (draws.rows.tolist(), draws.patients.tolist(), draws.origins.tolist())
        for step in plan
        for draws in step
    ]


def test_a_plan_comes_from_seeds_alone(volumes):
    plan = epochs(volumes).plan(7, "a", 1)
    assert flat(plan) == flat(epochs(volumes).plan(7, "a", 1))
    for other in ((8, "a", 1), (7, "b", 1), (7, "a", 2)):
        assert flat(plan) != flat(epochs(volumes).plan(*other))


def test_each_epoch_takes_as_many_pieces_of_every_volume_and_of_as_many_as_it_can_in_a_batch(volumes):
    plan = epochs(volumes).plan(7, "a", 1)
    assert [len(step[0].rows) for step in plan] == [4, 4, 4, 3] * 2
    for epoch in (plan[:4], plan[4:]):
        rows = np.concatenate([step[0].rows for step in epoch])
        assert np.bincount(rows).tolist() == [0, 3, 3, 3, 3, 3]
    for step in epochs(volumes, batch_size=5, per_volume=4).plan(7, "a", 1):
        assert sorted(step[0].rows.tolist()) == [1, 2, 3, 4, 5]


def test_every_piece_lies_in_its_volume_and_no_two_epochs_take_the_same(volumes):
    plan = epochs(volumes).plan(7, "a", 1)
    for step in plan:
        for row, patient, origin in zip(step[0].rows, step[0].patients, step[0].origins, strict=True):
            assert patient == row // 2
            assert np.all(origin >= 0)
            assert np.all(origin + volumes.geometry.block <= volumes.files[row].shape)
    first, second = (flat(part) for part in (plan[:4], plan[4:]))
    assert first != second


def test_accumulated_steps_hold_several_batches(volumes):
    plan = epochs(volumes, accumulate=3).plan(7, "a", 1)
    assert [len(step) for step in plan] == [3, 1] * 2


def trained(what, volumes, number=1, method=None):
    method = method or build_method(what)
    fabric = make_fabric("cpu", "fp32", 1)
    return train_round(method, site(volumes), what, RoundPlace("a", number, ""), fabric, NullProgress())


def test_training_on_patches_lowers_the_loss(study, volumes):
    training = {"batch_size": 6, "local_epochs": 6, "base_learning_rate": 0.04}
    what = study(training=training, federation={"rounds": 2})
    method = build_method(what)
    first, second = (trained(what, volumes, number, method).loss for number in (1, 2))
    assert second < 0.98 * first


@pytest.mark.parametrize("method", ["mae", "simclr"])
def test_patches_may_have_three_edges(study, volumes, method):
    what = study(
        data={**DATA, "image_size": [8, 16, 24]},
        method={"name": method},
        training={"batch_size": 6, "local_epochs": 1},
    )
    outcome = trained(what, Volumes(volumes.files, Geometry.of(what.data)))
    assert np.isfinite(outcome.loss)
    assert outcome.steps == 3


class Stops:
    """Ends the training after a step, as a kill would."""

    def __init__(self, after):
        self.after = after

    def advance(self, done, note=""):
        if done == self.after:
            raise KeyboardInterrupt


def test_a_round_that_was_killed_ends_with_the_same_bits(study, volumes, tmp_path):
    what = study(training={"batch_size": 6, "local_epochs": 1, "checkpoint_minutes": 0.0})
    fabric, ends = make_fabric("cpu", "fp32", 1), []
    for name, stop in {"whole": None, "killed": 2}.items():
        place = RoundPlace("a", 1, "", tmp_path / name / "step.pt")
        if stop:
            with pytest.raises(KeyboardInterrupt):
                train_round(build_method(what), site(volumes), what, place, fabric, Stops(stop))
        method = build_method(what)
        train_round(method, site(volumes), what, place, fabric, NullProgress())
        ends.append(method.cpu().state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_pooled_arm_takes_the_training_volumes_of_all_sites(study, volumes):
    one = site(volumes.of_rows(np.array([0, 1, 2])), "one")
    other = site(volumes.of_rows(np.array([3, 4, 5])), "other")
    all_of_them = pooled([one, other])
    assert [file.path for file in all_of_them.images.files] == [file.path for file in volumes.files]
    plan = MECHANISMS["none"].sampler(all_of_them, study()).plan(7, "pooled", 1)
    assert sum(len(step[0].rows) for step in plan) == 2 * 3 * 6
