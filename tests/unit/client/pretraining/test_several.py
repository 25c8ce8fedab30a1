"""Two processes of one site give the update of one."""

import numpy as np
import pytest

from hilum.client.data.site_data import SiteData
from hilum.client.pretraining import fitting, several
from hilum.client.pretraining.checkpoint import load_state
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.loop import RoundPlace, train_round
from hilum.client.pretraining.several import train_on_several
from hilum.client.pretraining.site import site_round
from hilum.common.errors import RequestRefused
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from hilum.common.progress import NullProgress
from mapped_images import mapped_data

TRAINING = {"batch_size": 7, "accumulate": 2, "local_epochs": 2, "base_learning_rate": 1e-3}
PLACE = RoundPlace("site-0", 1, "")


@pytest.fixture
def data(tmp_path):
    return mapped_data(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{}, {"encoder": {"name": "resnet", "size": "tiny"}, "method": {"name": "simclr"}}],
    ids=["mae", "simclr"],
)
def test_two_processes_give_the_update_of_one(make_study, data, changes):
    study = make_study(**changes, training=TRAINING)
    one, two = build_method(study), build_method(study)
    base = get_federated(one)
    alone = train_round(one, data, study, PLACE, make_fabric("cpu", "fp32", 1), NullProgress())
    seen = []

    class Seen:
        def advance(self, done, note=""):
            seen.append(done)

    together = train_on_several(two, data, study, PLACE, Seen(), device="cpu", devices=2)
    moved = get_federated(one) - base
    other = get_federated(two) - base
    assert np.abs(moved).max() > 1e-5
    np.testing.assert_allclose(other, moved, atol=1e-6, rtol=0)
    # AdamW makes a full step also of a gradient that is nothing but the order of a sum, such as that of a key's bias.
    assert np.linalg.norm(other - moved) < 0.01 * np.linalg.norm(moved)
    assert together.steps == alone.steps
    assert together.loss == pytest.approx(alone.loss, abs=1e-5)
    assert together.gradient_norm == pytest.approx(alone.gradient_norm, rel=1e-4)
    assert seen, "the site is told of the steps, and may stop them"


def test_a_round_that_was_stopped_goes_on_in_all_processes_with_the_same_bits(make_study, data, tmp_path):
    class StopAt:
        def advance(self, done, note=""):
            if done == 3:
                raise KeyboardInterrupt

    study = make_study(training=TRAINING | {"local_epochs": 4, "checkpoint_minutes": 0.0})
    base = get_federated(build_method(study))
    whole = site_round(data, study, base, 1, tmp_path / "whole", device="cpu", devices=2)
    with pytest.raises(KeyboardInterrupt):
        site_round(data, study, base, 1, tmp_path / "cut", device="cpu", devices=2, progress=StopAt())
    assert load_state(tmp_path / "cut" / "step.pt")["next_step"] >= 1
    again = site_round(data, study, base, 1, tmp_path / "cut", device="cpu", devices=2)
    assert again.update.tobytes() == whole.update.tobytes()
    assert again.outcome.loss == whole.outcome.loss


def test_a_process_that_dies_is_told_and_leaves_none_behind(make_study, data, capfd):
    study = make_study(training=TRAINING)
    broken = SiteData(
        "site-0", data.images[:3], (None,) * 20, data.split, "content"
    )  # rows that are not there
    with pytest.raises(RequestRefused, match="has died"):
        train_on_several(build_method(study), broken, study, PLACE, NullProgress(), device="cpu", devices=2)
    assert "out of bounds" in capfd.readouterr().err


def test_a_step_that_does_not_fit_on_several_devices_is_told_which_would(
    make_study, data, tmp_path, monkeypatch
):
    """As if each process had said that its device's memory is full; one step of four images is all that fits."""
    monkeypatch.setattr(several, "_run", lambda folder, count, progress: (folder / "full").touch())
    monkeypatch.setattr(fitting, "fits", lambda study, batch, fabric: batch <= 4)
    study = make_study(training={"batch_size": 20})
    base = get_federated(build_method(study))
    with pytest.raises(RequestRefused, match="holds a batch of 5 images") as refused:
        site_round(data, study, base, 1, tmp_path / "state", device="cpu", devices=2)
    assert refused.value.code == "machine"


def test_more_gpus_than_there_are_are_refused_in_one_line(make_study, data, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(RequestRefused) as refused:
        train_on_several(
            build_method(make_study()), data, make_study(), PLACE, NullProgress(), device="cuda", devices=4
        )
    assert refused.value.code == "machine"
    assert str(refused.value) == "compute.devices = 4, but torch sees 2 GPUs; write 2, or see to the others"


def test_a_gpu_that_is_not_there_is_refused_in_one_line_whatever_trains(
    make_study, data, tmp_path, monkeypatch
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    study = make_study()
    base = get_federated(build_method(study))
    with pytest.raises(RequestRefused, match="torch sees no GPU; see to its driver") as refused:
        site_round(data, study, base, 1, tmp_path, device="cuda")
    assert refused.value.code == "machine"


def test_who_listens_to_the_steps_can_stop_all_processes(make_study, data):
    class Stop:
        def advance(self, done, note=""):
            raise KeyboardInterrupt

    study = make_study(training=TRAINING)
    with pytest.raises(KeyboardInterrupt):
        train_on_several(build_method(study), data, study, PLACE, Stop(), device="cpu", devices=2)
