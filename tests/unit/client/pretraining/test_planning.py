"""What `hilum plan` measures and says, and what a step that does not fit is told."""

import numpy as np
import pytest
import torch

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.pretraining import fitting, planning
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.fitting import fits, largest_batch
from hilum.client.pretraining.planning import in_time, in_words, plan_study, with_batch
from hilum.client.pretraining.site import site_round
from hilum.client.pretraining.step import PlainStep
from hilum.common.errors import RequestRefused
from hilum.common.footprint import footprint_of
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated

FABRIC = make_fabric("cpu", "fp32", 1)


@pytest.fixture
def small_device(monkeypatch):
    """A device that holds steps of so many images."""

    def hold(most):
        take = PlainStep.__call__

        def limited(self, batches, sizes):
            if max(sizes) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return take(self, batches, sizes)

        monkeypatch.setattr(PlainStep, "__call__", limited)

    return hold


def site_of(count):
    rows, none = np.arange(count), np.zeros(0, np.int64)
    images = np.random.default_rng(0).integers(0, 65_535, (count, 1, 20, 20)).astype(np.uint16)
    return SiteData("site-0", images, (None,) * count, Split(rows, none, none, rows), "content")


@pytest.mark.parametrize(
    ("most", "least", "held", "found"),
    [
        (64, 1, 100, 64),
        (64, 1, 30, 16),
        (64, 2, 1, 0),
        (3, 1, 1, 1),
        (0, 1, 9, 0),
        (1, 2, 9, 0),
    ],
)
def test_the_largest_batch_is_found_by_halving(most, least, held, found):
    assert largest_batch(most, least, lambda batch: batch <= held) == found


def test_a_step_that_does_not_fit_is_told_which_would(make_study, small_device, tmp_path):
    study = make_study(training={"batch_size": 20})
    base = get_federated(build_method(study))
    small_device(6)
    with pytest.raises(RequestRefused) as refused:
        site_round(site_of(20), study, base, 1, tmp_path, device="cpu")
    assert refused.value.code == "machine"
    assert str(refused.value) == (
        "training.batch_size = 20 is too large here: the device's memory holds a batch of 5 images: write training.batch_size = 5 "
        "with training.accumulate = 4, which is a step of as many images"
    )
    small_device(0)
    with pytest.raises(
        RequestRefused, match=r"does not hold a step of 1 images either; .*gradient_checkpointing = true"
    ):
        site_round(site_of(20), study, base, 1, tmp_path, device="cpu")


def test_of_a_method_that_contrasts_a_batch_smaller_ones_are_not_the_same(make_study, small_device):
    study = make_study(method={"name": "simclr"}, training={"batch_size": 16})
    small_device(4)
    assert fitting.what_fits(study, FABRIC).endswith(
        "holds a batch of 4 images: write training.batch_size = 4"
    )


def test_another_error_of_a_step_is_not_taken_for_one_of_memory(make_study, monkeypatch):
    def broken(*_):
        raise RuntimeError("a shape is wrong")

    monkeypatch.setattr(PlainStep, "__call__", broken)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        fits(make_study(), 2, FABRIC)


def test_a_plan_is_arithmetic_over_what_the_loop_did(make_study):
    study = make_study(training={"batch_size": 4, "local_epochs": 3}, federation={"rounds": 5})
    plan = plan_study(study, None, 100, seconds=0.1)
    assert (plan.batch_size, plan.images, plan.steps) == (4, 100, 75)
    assert plan.images_per_second > 0
    assert plan.round_seconds == pytest.approx(300 / plan.images_per_second)
    assert plan.hours == pytest.approx(5 * plan.round_seconds / 3600)
    assert plan.bytes_up == plan.bytes_down == footprint_of(study).update_bytes
    assert plan.largest_batch_size % 4 == 0
    assert plan.memory_bytes > 10**8
    words = "\n".join(in_words(plan, study))
    assert "75 steps" in words
    assert "too large" not in words


def test_a_plan_measures_with_no_more_images_than_there_are(make_study):
    plan = plan_study(make_study(training={"batch_size": 64}), None, 7, seconds=0.1)
    assert plan.batch_size == 7
    assert plan.steps == 1


def test_a_plan_says_what_to_write_where_the_batch_does_not_fit(make_study, monkeypatch):
    study = make_study(training={"batch_size": 512}, data={"image_size": 64})
    monkeypatch.setattr(
        planning, "free_memory_bytes", lambda _: footprint_of(with_batch(study, 130)).memory_bytes
    )
    plan = plan_study(study, None, 1000, seconds=0.1)
    assert (plan.batch_size, plan.largest_batch_size) == (128, 128)
    last = in_words(plan, study)[-1]
    assert last == (
        "too large: training.batch_size = 512 does not fit; write training.batch_size = 128 and training.accumulate = 4, "
        "a step of as many images"
    )
    monkeypatch.setattr(planning, "free_memory_bytes", lambda _: 1000)
    plan = plan_study(study, None, 1000, seconds=0.1)
    assert plan.largest_batch_size == 0
    assert "not even 1 images fit" in in_words(plan, study)[-1]


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (720, "12 min"), (12_600, "3.5 h"), (362_880, "4.2 days")]
)
def test_times_in_words(seconds, words):
    assert in_time(seconds) == words
