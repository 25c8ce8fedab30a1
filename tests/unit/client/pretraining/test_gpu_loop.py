"""What keeps a GPU busy: nothing within a step waits for it, and kernels lie as it reads them."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.pretraining.determinism import determinism
from hilum.client.pretraining.device import lay_out, make_fabric
from hilum.client.pretraining.loop import RoundPlace, _Outcomes, train_round
from hilum.client.pretraining.optimizer import make_optimizer
from hilum.client.pretraining.site import site_round
from hilum.client.pretraining.step import MicroBatch, PendingOutcome, PlainStep
from hilum.client.views import Viewer, random_numbers, unit_of
from hilum.common.config.modalities import MODALITIES
from hilum.common.encoders.blocks import Blocks
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from hilum.common.progress import NullProgress

METHODS = [
    {},
    {"method": {"name": "simclr"}, "encoder": {"name": "resnet", "size": "tiny"}},
]
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def data():
    images = np.random.default_rng(0).integers(0, 65535, (20, 1, 20, 20)).astype(np.uint16)
    rows, none = np.arange(20), np.zeros(0, np.int64)
    return SiteData("site-0", images, (None,) * 20, Split(rows, none, none, rows), "content")


class NoWaiting(TorchDispatchMode):
    """Refuses what a GPU would have to be waited for: values that the program itself looks at."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not name.startswith(WAITS), f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


def step_on(study, device, guard):
    """Take a step of views and training, with what would wait for the device refused."""
    fabric = make_fabric(device, "fp32", 1)
    method = build_method(study)
    lay_out(method, fabric)
    step = PlainStep(fabric, *fabric.setup(method, make_optimizer(method, study)), gradient_clip=1.0)
    viewer = Viewer(study.data, method.spec.views, study.views)
    shape = (6, study.data.facts.channels, *[study.data.store_size] * study.data.dims)
    stored = torch.randint(-30_000, 30_000, shape, dtype=torch.int16, device=fabric.device)
    patients = torch.arange(6, device=fabric.device)
    for guarded in (False, True):  # the first step makes the optimizer's state
        rng = random_numbers(fabric.device, 3)

        def batches(rng=rng):
            views = viewer(unit_of(stored), rng)._replace(patients=patients)
            yield MicroBatch(views, method.draw(6, rng), 6)

        if guarded:
            with guard():
                pending = step(batches(), [6])
        else:
            pending = step(batches(), [6])
    return pending.wait()


def of(make_study, modality, changes):
    return make_study(**changes, data={"modality": modality, "dims": 2})


@pytest.mark.parametrize("changes", METHODS)
@pytest.mark.parametrize("modality", MODALITIES)
def test_no_step_looks_at_a_value(make_study, modality, changes):
    outcome = step_on(of(make_study, modality, changes), "cpu", NoWaiting)
    assert np.isfinite(outcome.loss)


def test_looking_at_a_value_would_be_noticed():
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        float(torch.ones(2).sum())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("changes", METHODS)
@pytest.mark.parametrize("modality", MODALITIES)
def test_no_step_waits_for_a_gpu(make_study, modality, changes):
    class Refused:
        def __enter__(self):
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *_raised):
            torch.cuda.set_sync_debug_mode("default")

    assert np.isfinite(step_on(of(make_study, modality, changes), "cuda", Refused).loss)


def test_outcomes_are_fetched_so_many_steps_later_and_all_at_the_end():
    def pending(loss):
        return PendingOutcome(("",), torch.tensor([loss, 1.0]), None)

    outcomes = _Outcomes([], behind=2)
    seen = []
    for loss in (1.0, 2.0, 3.0, 4.0):
        outcomes.add(pending(loss))
        seen.append([one.loss for one in outcomes.known])
    outcomes.add(None)
    assert seen == [[], [], [1.0], [1.0, 2.0]]
    assert [one.loss for one in outcomes.all()] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("dims", [2, 3])
def test_kernels_lie_channels_last_on_a_gpu_and_travel_as_ever(make_study, dims):
    class OnGpu:
        device = torch.device("cuda")

    modality = "radiograph" if dims == 2 else "ct"
    study = make_study(**METHODS[1], data={"modality": modality, "dims": dims, "cut": "whole"})
    method = build_method(study)
    before = get_federated(method)
    lay_out(method, make_fabric("cpu", "fp32", 1))
    assert all(parameter.is_contiguous() for parameter in method.parameters())
    lay_out(method, OnGpu)
    wide = [p for p in method.parameters() if p.ndim == dims + 2 and p.shape[1] > 1 and p.shape[2] > 1]
    wanted = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert wide
    assert all(parameter.is_contiguous(memory_format=wanted) for parameter in wide)
    assert get_federated(method).tobytes() == before.tobytes()


def test_determinism_leaves_nothing_behind_and_a_processor_alone():
    def stop_early():
        with determinism(True, torch.device("cuda")):
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.backends.cuda.mem_efficient_sdp_enabled()
            raise KeyboardInterrupt

    with determinism(True, torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(KeyboardInterrupt):
        stop_early()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("changes", METHODS)
def test_two_deterministic_rounds_on_a_gpu_give_the_same_bits(make_study, data, tmp_path, changes):
    study = make_study(**changes, training={"deterministic": True, "batch_size": 8})
    base = get_federated(build_method(study))
    one, other = (
        site_round(data, study, base, 1, tmp_path / name, device="cuda").update.tobytes()
        for name in ("a", "b")
    )
    assert one == other


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("changes", METHODS)
def test_compiled_rounds_on_a_gpu_give_what_the_others_give(make_study, data, changes):
    losses = []
    for compiled in (False, True):
        training = {"compile": compiled, "deterministic": True, "precision": "fp32", "batch_size": 8}
        study = make_study(**changes, training=training)
        fabric = make_fabric("cuda", "fp32", 1)
        place = RoundPlace("a", 1, "")
        method = build_method(study)
        losses.append(train_round(method, data, study, place, fabric, NullProgress()).loss)
        assert compiled == any(isinstance(one, Blocks) and one.compiled for one in method.modules())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
