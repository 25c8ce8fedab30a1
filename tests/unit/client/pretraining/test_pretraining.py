from dataclasses import replace

import numpy as np
import pytest
import torch

from batches import views_of
from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.pretraining.checkpoint import LocalParts, load_state, save_state
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.sampling import ShuffledEpochs
from hilum.client.pretraining.schedule import REWARM_STEPS, learning_rate_factor, step_middle
from hilum.client.pretraining.site import pretrain_alone, site_round
from hilum.client.pretraining.step import MicroBatch, PlainStep
from hilum.client.state.workspace import Workspace
from hilum.client.tasks.classification import Classification
from hilum.client.tasks.finetuning import predict_by_finetuning
from hilum.common.config import parse_study
from hilum.common.encoders import build_encoder
from hilum.common.errors import RunError
from hilum.common.methods import Loss, build_method
from hilum.common.methods.parts import get_federated
from hilum.common.weights import apply_update
from studies import study_table

METHODS = [{}, {"method": {"name": "simclr"}}]


@pytest.fixture
def data():
    images = np.random.default_rng(0).integers(0, 65535, (20, 1, 20, 20)).astype(np.uint16)
    rows, none = np.arange(20), np.zeros(0, np.int64)
    return SiteData("site-0", images, (None,) * 20, Split(rows, none, none, rows), "content")


class StopAt:
    def __init__(self, step):
        self.step = step

    def advance(self, done, note=""):
        if done == self.step:
            raise KeyboardInterrupt


def test_an_epoch_sees_every_image_once_in_batches_of_like_size():
    sampler = ShuffledEpochs(np.arange(50), np.arange(50) // 2, batch_size=16, accumulate=3, epochs=2)
    steps = sampler.plan(1, "a", 1)
    assert [len(step) for step in steps] == [3, 1, 3, 1]
    first = np.concatenate([draws.rows for step in steps[:2] for draws in step])
    assert sorted(first) == list(range(50))
    assert {len(draws.rows) for step in steps for draws in step} <= {12, 13}
    assert all(np.array_equal(draws.patients, draws.rows // 2) for step in steps for draws in step)


def test_the_plan_depends_on_seed_site_and_round():
    plans = [
        ShuffledEpochs(np.arange(30), np.arange(30), batch_size=30, accumulate=1, epochs=1)
        .plan(*key)[0][0]
        .rows.tolist()
        for key in [(1, "a", 1), (2, "a", 1), (1, "b", 1), (1, "a", 2), (1, "a", 1)]
    ]
    assert plans[0] == plans[4]
    assert len({tuple(plan) for plan in plans}) == 4


def test_the_rate_climbs_and_then_falls_to_zero_over_the_whole_study():
    rates = [learning_rate_factor(done, 0.1) for done in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert max(rates) == rates[10] == 1
    assert rates[-1] == pytest.approx(0)
    assert rates[55] == pytest.approx(0.5)
    assert learning_rate_factor(0, 0) == 1


@pytest.mark.parametrize("changes", METHODS)
def test_a_round_that_is_killed_at_any_step_ends_with_the_same_bits(make_study, data, tmp_path, changes):
    study = make_study(**changes, training={"batch_size": 5, "local_epochs": 2, "checkpoint_minutes": 0.0})
    base = get_federated(build_method(study))
    whole = site_round(data, study, base, 1, tmp_path / "whole", device="cpu")
    assert whole.outcome.steps == 8
    for step in (1, 3, 7):
        folder = tmp_path / f"killed-{step}"
        with pytest.raises(KeyboardInterrupt):
            site_round(data, study, base, 1, folder, device="cpu", progress=StopAt(step))
        assert (folder / "step.pt").exists() is (step >= 2)
        again = site_round(data, study, base, 1, folder, device="cpu")
        assert again.update.tobytes() == whole.update.tobytes()
        assert again.outcome.loss == whole.outcome.loss
        assert not (folder / "step.pt").exists()


@pytest.mark.parametrize("sizes", [[2, 2, 2, 2], [6, 1, 1]])
def test_accumulated_micro_batches_make_one_step_of_the_mean_over_images(make_study, sizes):
    fabric = make_fabric("cpu", "fp32", 1)
    rng = torch.Generator().manual_seed(3)
    views = torch.rand(8, 1, 1, 16, 16, generator=rng)
    moved = {}
    for parts in ([8], sizes):
        method = build_method(make_study())
        before = torch.cat([p.detach().flatten().clone() for p in method.parameters()])
        wrapped, optimizer = fabric.setup(method, torch.optim.SGD(method.parameters(), lr=0.1, fused=True))
        numbers = method.draw(8, torch.Generator().manual_seed(4))
        batches = [
            MicroBatch(views_of(images), {"order": order}, len(images))
            for images, order in zip(views.split(parts), numbers["order"].split(parts), strict=True)
        ]
        told = PlainStep(fabric, wrapped, optimizer, gradient_clip=1e9)(batches, parts).wait()
        moved[len(parts)] = told.loss, torch.cat([p.detach().flatten() for p in method.parameters()]) - before
    one, several = moved[1], moved[len(sizes)]
    assert one[0] == pytest.approx(several[0], rel=1e-5)
    assert one[1].norm() > 1e-3
    torch.testing.assert_close(several[1], one[1], atol=1e-6, rtol=0)


class Broken(torch.nn.Module):
    """A method of one weight; an image of -1 gives a loss that is not finite."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0]))

    def forward(self, views, numbers):
        images = views.groups["image"].flatten(1).mean(1)
        return Loss(self.weight * torch.where(images < 0, float("nan"), images), {}, {})


def test_a_gradient_that_is_not_finite_moves_neither_weights_nor_moments():
    fabric, model = make_fabric("cpu", "fp32", 1), Broken()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0, fused=True)
    step = PlainStep(fabric, *fabric.setup(model, optimizer), gradient_clip=1.0)

    def take(*values):
        images = torch.tensor(values).view(-1, 1, 1, 1, 1)
        return step([MicroBatch(views_of(images), {}, len(values))], [len(values)]).wait()

    assert not take(1.0, 0.5).was_skipped
    weight, state = model.weight.item(), {k: v.clone() for k, v in optimizer.state[model.weight].items()}
    assert take(0.5, -1.0).was_skipped
    assert model.weight.item() == weight
    assert all(torch.equal(optimizer.state[model.weight][key], value) for key, value in state.items())
    told = take(1.0, 0.5)
    assert (told.loss, told.gradient_norm) == pytest.approx((0.75 * weight, 0.75))
    assert model.weight.item() < weight


def test_a_round_counts_the_steps_it_skipped_and_tells_means_of_the_others(
    make_study, data, tmp_path, monkeypatch
):
    study, take = make_study(training={"batch_size": 5}), PlainStep.__call__
    calls = []

    def skipped(outcome):
        return replace(outcome, values=torch.full_like(outcome.values, float("nan")))

    def sometimes(self, batches, sizes):
        calls.append(sizes)
        outcome = take(self, batches, sizes)
        return skipped(outcome) if len(calls) % 2 else outcome

    monkeypatch.setattr(PlainStep, "__call__", sometimes)
    outcome = site_round(data, study, get_federated(build_method(study)), 1, tmp_path, device="cpu").outcome
    assert (outcome.steps, outcome.skipped) == (4, 2)
    assert np.isfinite([outcome.loss, outcome.gradient_norm]).all()
    monkeypatch.setattr(PlainStep, "__call__", lambda *given: skipped(take(*given)))
    outcome = site_round(data, study, get_federated(build_method(study)), 1, tmp_path, device="cpu").outcome
    assert outcome.skipped == outcome.steps == 4
    assert np.isnan(outcome.loss), "nothing was learned, so nothing is sent"


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "images"), [(5, 1, 5), (5, 2, 10), (20, 1, 20), (500, 1, 20)]
)
def test_the_peak_of_the_rate_is_the_share_that_a_step_has_of_256_images(
    make_study, data, tmp_path, monkeypatch, batch_size, accumulate, images
):
    study = make_study(
        training={"batch_size": batch_size, "accumulate": accumulate, "local_epochs": 40, "warmup": 0.0},
        federation={"rounds": 1},
    )
    rates, take = [], PlainStep.__call__

    def noting(self, batches, sizes):
        rates.append(self.optimizer.param_groups[0]["lr"])
        return take(self, batches, sizes)

    monkeypatch.setattr(PlainStep, "__call__", noting)
    site_round(data, study, get_federated(build_method(study)), 1, tmp_path, device="cpu")
    peak = 1.5e-4 * images / 256
    assert min(rates) > 0
    assert rates[0] == pytest.approx(peak / REWARM_STEPS, rel=0.01)
    expected = [learning_rate_factor(step_middle(step, len(rates)), 0.0) for step in range(len(rates))]
    assert rates[REWARM_STEPS:] == pytest.approx([peak * factor for factor in expected[REWARM_STEPS:]])


@pytest.mark.parametrize(
    ("method", "encoder", "rate", "decoder"),
    [
        ("mae", {"name": "vit", "size": "tiny"}, 1.5e-4, (96, 2)),
        ("mae", {"name": "vit", "size": "small"}, 1.5e-4, (512, 8)),
        ("mae", {"name": "vit", "size": "base"}, 1.5e-4, (512, 8)),
        ("simclr", {"name": "resnet", "size": "tiny"}, 5e-4, None),
    ],
)
def test_what_a_study_does_not_say_is_as_in_the_methods_paper(method, encoder, rate, decoder):
    table = study_table()
    del table["training"]
    study = parse_study({**table, "method": {"name": method}, "encoder": encoder})
    assert (study.base_learning_rate, study.training.batch_size) == (rate, 256)
    if decoder:
        made = build_method(study).decoder
        assert (made.embed.out_features, len(made.blocks)) == decoder


@pytest.mark.parametrize(
    "changes", [{}, {"method": {"name": "simclr"}, "encoder": {"name": "resnet", "size": "tiny"}}]
)
def test_gradient_checkpointing_changes_no_bit(make_study, data, tmp_path, changes):
    sent = []
    for recomputed in (False, True):
        study = make_study(
            **changes,
            training={"batch_size": 10, "base_learning_rate": 0.02, "gradient_checkpointing": recomputed},
        )
        base = get_federated(build_method(study))
        sent.append(site_round(data, study, base, 1, tmp_path / f"{recomputed}", device="cpu").update)
    assert np.abs(sent[0]).max() > 0
    assert sent[0].tobytes() == sent[1].tobytes()


def test_a_checkpoint_of_other_weights_or_images_is_not_taken_up(make_study, data, tmp_path):
    study = make_study(training={"batch_size": 5, "checkpoint_minutes": 0.0})
    base = get_federated(build_method(study))
    other = apply_update(base, np.full_like(base, 0.01))
    with pytest.raises(KeyboardInterrupt):
        site_round(data, study, base, 1, tmp_path / "a", device="cpu", progress=StopAt(2))
    found = site_round(data, study, other, 1, tmp_path / "a", device="cpu")
    fresh = site_round(data, study, other, 1, tmp_path / "b", device="cpu")
    assert found.update.tobytes() == fresh.update.tobytes()


def test_asking_for_a_round_twice_gives_the_same_update(make_study, data, tmp_path):
    """The server may lose a round: local parts always start from those of the round before."""
    study = make_study(method={"name": "simclr"})
    base = get_federated(build_method(study))
    first = site_round(data, study, base, 1, tmp_path, device="cpu")
    base = apply_update(base, first.update)
    second = site_round(data, study, base, 2, tmp_path, device="cpu")
    again = site_round(data, study, base, 2, tmp_path, device="cpu")
    assert second.update.tobytes() == again.update.tobytes()
    without = site_round(data, study, base, 2, tmp_path / "elsewhere", device="cpu")
    assert without.update.tobytes() != second.update.tobytes(), "the projection head of round 1 matters"


def test_pretraining_alone_goes_on_from_its_last_round(make_study, data, tmp_path):
    study = make_study(federation={"rounds": 3})
    whole = pretrain_alone(data, study, tmp_path / "whole", device="cpu").weights
    with pytest.raises(KeyboardInterrupt):
        pretrain_alone(data, study, tmp_path / "cut", device="cpu", progress=StopAt(2))
    assert pretrain_alone(data, study, tmp_path / "cut", device="cpu").weights.tobytes() == whole.tobytes()


def test_a_collapse_ends_pretraining_alone_where_the_study_says_so_and_no_arm(
    make_study, data, tmp_path, monkeypatch
):
    monkeypatch.setattr("hilum.client.pretraining.site.has_collapsed", lambda health: True)
    study = make_study(training={"stop_on_collapse": True}, federation={"rounds": 2})
    with pytest.raises(
        RunError, match=r"collapsed in round 1, and training\.stop_on_collapse is true; lower"
    ):
        pretrain_alone(data, study, tmp_path / "a", device="cpu", stops=True)
    with pytest.raises(RunError, match="collapsed in round 1"):
        pretrain_alone(data, study, tmp_path / "a", device="cpu", stops=True)  # asked again, it is as it was
    assert pretrain_alone(data, study, tmp_path / "b", device="cpu").round == 2, "an arm goes on"
    goes_on = make_study(federation={"rounds": 2})
    assert pretrain_alone(data, goes_on, tmp_path / "c", device="cpu", stops=True).round == 2


def test_the_updates_norm_can_be_bounded(make_study, data, tmp_path):
    study = make_study(privacy={"max_update_norm": 0.05}, training={"base_learning_rate": 0.1})
    sent = site_round(data, study, get_federated(build_method(study)), 1, tmp_path, device="cpu")
    assert 0.049 < np.linalg.norm(sent.update.astype(float)) <= 0.05


def test_a_damaged_checkpoint_counts_as_none(tmp_path):
    save_state(tmp_path / "a.pt", {"x": torch.ones(3), "n": 1})
    assert load_state(tmp_path / "a.pt")["n"] == 1
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    assert load_state(tmp_path / "a.pt") is None
    assert load_state(tmp_path / "none.pt") is None


def test_local_parts_leave_every_other_file_alone(tmp_path):
    others = [
        tmp_path / name
        for name in ("local-notes.pt", "local-1.pt", "local-000002.pt.old", "x-local-000009.pt")
    ]
    for path in others:
        path.write_text("not ours")
    parts = LocalParts(tmp_path)
    for number in (1, 2, 3):
        parts.save(number, {"x": torch.tensor([float(number)])})
    assert parts.before(3)["x"] == 2
    assert all(path.read_text() == "not ours" for path in others)
    assert sorted(path.name for path in tmp_path.glob("local-00000*.pt")) == [
        "local-000002.pt",
        "local-000003.pt",
    ]


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "", ".", "..", "a\n", "a" * 65, ".x", "a\0"])
def test_a_runs_folder_lies_in_the_state_folder_whatever_asks_for_it(tmp_path, name):
    with pytest.raises(ValueError, match="a folder's name and nothing more"):
        Workspace(tmp_path).run(name)
    assert Workspace(tmp_path).run("run-1").parent == tmp_path / "runs"


def test_local_parts_keep_two_rounds_and_pass_over_a_damaged_one(tmp_path):
    parts = LocalParts(tmp_path)
    for number in (1, 2, 3):
        parts.save(number, {"x": torch.tensor([float(number)])})
    assert len(list(tmp_path.iterdir())) == 2
    assert parts.before(4)["x"].item() == 3
    assert parts.before(3)["x"].item() == 2
    (tmp_path / "local-000003.pt").write_bytes(b"damaged")
    assert parts.before(4)["x"].item() == 2
    assert parts.before(1) is None


def test_local_parts_of_an_earlier_run_at_the_same_place_go(tmp_path):
    parts = LocalParts(tmp_path)
    for number in (7, 8, 1, 2):
        parts.save(number, {"x": torch.tensor([float(number)])})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local-000001.pt", "local-000002.pt"]


def test_a_site_that_missed_rounds_starts_from_its_last_one_however_often_it_is_asked(tmp_path):
    parts = LocalParts(tmp_path)
    for number in (3, 6, 6):
        parts.save(number, {"x": torch.tensor([float(number)])})
        assert parts.before(6)["x"].item() == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("changes", METHODS)
def test_a_round_runs_on_a_gpu_in_bf16(make_study, data, tmp_path, changes):
    study = make_study(**changes)
    sent = site_round(data, study, get_federated(build_method(study)), 1, tmp_path, device="cuda")
    assert np.isfinite(sent.update).all()
    assert np.isfinite(sent.outcome.loss)


def test_hours_that_are_used_up_stop_every_training_at_its_next_step(make_study, data, tmp_path):
    """A round may have a hundred epochs, a fine-tuning too: neither may be waited for to its end."""
    study = make_study(training={"batch_size": 4}, evaluation={"finetune_epochs": 100})
    with pytest.raises(KeyboardInterrupt):
        pretrain_alone(data, study, tmp_path, device="cpu", steps=StopAt(2))
    labels = [str(n % 2) for n in range(len(data.images))]
    task = Classification(labels, data.split, study, study.tasks.classification)
    fabric = make_fabric("cpu", "fp32", 1)
    with pytest.raises(KeyboardInterrupt):
        predict_by_finetuning(
            task, build_encoder(study), data.images, np.arange(10), study, fabric, StopAt(2)
        )
