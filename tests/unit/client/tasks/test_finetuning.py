"""Fine-tuning: rates by layer, patients that are held out, when it stops, what it keeps, and how sure its outputs are."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import log_loss, roc_auc_score

from hilum.client.data.splits import Split
from hilum.client.pretraining.device import make_fabric
from hilum.client.tasks.calibration import fit_temperature
from hilum.client.tasks.classification import Classification
from hilum.client.tasks.early_stopping import Watch
from hilum.client.tasks.finetuning import PooledLinear, finetune, outputs_of, predict_by_finetuning
from hilum.client.tasks.layer_decay import layer_groups
from hilum.client.tasks.lora import add_adapters
from hilum.client.tasks.validation import MIN_VALIDATION_PATIENTS, validation_rows
from hilum.common.encoders import build_encoder
from hilum.common.encoders.base import initialise
from hilum.common.progress import NullProgress

FABRIC = make_fabric("cpu", "fp32", 1)


def encoder_of(study):
    encoder = build_encoder(study)
    initialise(encoder, torch.Generator().manual_seed(1))
    return encoder


def two_classes(count, difference, seed=0):
    """Images whose brightness differs by class, in noise."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    images = rng.integers(0, 30_000, (count, 1, 20, 20)) + difference * classes[:, None, None, None]
    return images.astype(np.uint16), classes


def task_of(study, classes, trained):
    rows = np.arange(len(classes))
    split = Split(pretrain=rows[:trained], train=rows[:trained], test=rows[trained:], group=rows)
    return Classification([str(one) for one in classes], split, study, study.tasks.classification)


def rates(encoder, decay):
    """The rate of every parameter by name, over that of the head."""
    head = PooledLinear(encoder, 2)
    groups = layer_groups(encoder, head, peak=1.0, decay=decay, weight_decay=0.05)
    peak_of = {id(one): group["peak"] for group in groups for one in group["params"]}
    names = {id(one): name for name, one in [*encoder.named_parameters(), *head.named_parameters("head")]}
    assert sum(len(group["params"]) for group in groups) == len(peak_of) == len(names)
    return {names[number]: peak for number, peak in peak_of.items()}


def test_the_rate_of_a_transformers_layer_falls_from_the_head_to_the_patches(make_study):
    study = make_study(encoder={"positions": "learned"})
    found = rates(encoder_of(study), 0.75)
    for name, layers_after in (
        ("head.weight", 0),
        ("norm.weight", 0),
        ("blocks.11.attention.qkv.weight", 1),
        ("blocks.11.mlp.2.bias", 1),
        ("blocks.0.norm1.weight", 12),
        ("patch_embed.weight", 13),
        ("position_table.weight", 13),
    ):
        assert found[name] == pytest.approx(0.75**layers_after)
    assert study.layer_decay == 0.75


def test_the_rate_of_a_residual_networks_layer_falls_from_the_head_to_the_stem(make_study):
    study = make_study(encoder={"name": "resnet", "size": "tiny"}, method={"name": "simclr"})
    found = rates(encoder_of(study), 0.5)
    assert [found[f"stages.{n}.conv1.weight"] for n in range(4)] == [0.5**4, 0.5**3, 0.5**2, 0.5]
    assert (found["stem.weight"], found["stem_norm.weight"], found["head.bias"]) == (0.5**5, 0.5**5, 1.0)
    assert study.layer_decay == 1.0
    assert set(rates(encoder_of(study), 1.0).values()) == {1.0}
    assert make_study(evaluation={"layer_decay": 0.9}).layer_decay == 0.9


def test_matrices_decay_and_norms_biases_and_what_does_not_train_do_not(make_study):
    encoder = encoder_of(make_study())
    add_adapters(encoder, 4, 8.0, torch.Generator())
    head = PooledLinear(encoder, 2)
    groups = layer_groups(encoder, head, peak=1.0, decay=1.0, weight_decay=0.05)
    decayed = {id(one) for group in groups if group["weight_decay"] == 0.05 for one in group["params"]}
    others = {id(one) for group in groups if group["weight_decay"] == 0 for one in group["params"]}
    assert others == {id(head.bias)}
    adapters = {id(one) for name, one in encoder.named_parameters() if name.endswith((".up", ".down"))}
    assert decayed == adapters | {id(head.weight)}


@pytest.mark.parametrize("seed", range(5))
def test_held_out_rows_are_whole_patients_the_same_share_of_each_class(seed):
    rng = np.random.default_rng(seed)
    group = np.repeat(rng.permutation(120), 2)
    classes = np.repeat(np.arange(120) % 3 == 0, 2).astype(np.int64)
    train = 1000 + np.arange(240)
    held = validation_rows(train, classes, group, 0.25, seed=seed)
    assert set(held) < set(train)
    inside = np.isin(train, held)
    assert not set(group[inside]) & set(group[~inside])
    by_class = [len(np.unique(group[inside & (classes == number)])) for number in (0, 1)]
    assert by_class == [20, 10]
    assert not np.array_equal(held, validation_rows(train, classes, group, 0.25, seed=seed + 1))


def test_nobody_is_held_out_where_a_class_has_too_few_or_nobody_is_wanted():
    group = np.arange(60)
    enough, rare = np.arange(60) % 2, (np.arange(60) < 20).astype(np.int64)
    assert len(validation_rows(group, enough, group, 0.2, seed=1)) == 12
    assert round(0.2 * 20) < MIN_VALIDATION_PATIENTS
    assert len(validation_rows(group, rare, group, 0.2, seed=1)) == 0
    assert len(validation_rows(group, enough, group, 0.0, seed=1)) == 0


def test_no_test_patient_is_held_out(make_study):
    study = make_study(evaluation={"validation_share": 0.5})
    task = task_of(study, np.arange(60) % 2, 40)
    held = task.validation_rows(task.training_rows(1.0))
    assert len(held) == 20
    assert not set(held) & set(task.test)


def test_the_weights_of_the_least_loss_are_kept():
    layer = torch.nn.Linear(1, 1, bias=False)
    watch = Watch(layer, patience=3)
    told = []
    for number, loss in enumerate([3.0, 2.0, float("nan"), 1.0, 1.5, 1.0, 4.0, 0.5]):
        layer.weight.data.fill_(number)
        told.append(watch.should_stop(loss))
    assert told == [False] * 6 + [True, False]
    watch.restore()
    assert layer.weight.item() == 7
    none = Watch(layer, patience=3)
    none.restore()
    assert layer.weight.item() == 7


def test_training_on_noise_stops_early_and_keeps_what_validation_patients_liked_best(make_study):
    study = make_study(evaluation={"finetune_min_steps": 100, "validation_share": 0.3, "patience": 3})
    images, classes = two_classes(60, 0)
    task = task_of(study, classes, 40)
    train = task.training_rows(1.0)
    tuned = finetune(task, encoder_of(study), images, train, study, FABRIC, NullProgress())
    assert tuned.validated
    assert tuned.steps < 100
    held = task.validation_rows(train)
    criterion = task.criterion(np.setdiff1d(train, held), torch.device("cpu"))
    kept = float(criterion(outputs_of(tuned.module, images, held, study, FABRIC), held))
    longer = study.model_copy(update={"evaluation": study.evaluation.model_copy(update={"patience": 1000})})
    assert kept <= 0.75
    whole = finetune(task, encoder_of(longer), images, train, longer, FABRIC, NullProgress())
    assert whole.steps == 100
    found = float(criterion(outputs_of(whole.module, images, held, longer, FABRIC), held))
    assert found <= kept + 1e-6


@pytest.mark.parametrize("mode", ["frozen", "lora", "finetune"])
def test_every_mode_learns_what_brightness_tells_and_gives_plain_weights(make_study, mode):
    study = make_study(evaluation={"finetune_min_steps": 60, "validation_share": 0.3})
    images, classes = two_classes(60, 25_000)
    task = task_of(study, classes, 40)
    encoder = encoder_of(study)
    before = copy.deepcopy(encoder.state_dict())
    train = task.training_rows(1.0)
    scores, tuned = predict_by_finetuning(task, encoder, images, train, study, FABRIC, NullProgress(), mode)
    assert (scores.argmax(1) == classes[40:]).all()
    assert tuned.validated
    assert tuned.temperature is not None
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    trained = tuned.module.encoder.state_dict()
    assert set(trained) == set(before)
    same = {name for name, value in trained.items() if torch.equal(value, before[name])}
    assert (same == set(before)) == (mode == "frozen")
    assert ("patch_embed.weight" in same) == (mode != "finetune")
    outputs = outputs_of(tuned.module, images, task.test, study, FABRIC).double()
    np.testing.assert_allclose(scores, (outputs / tuned.temperature).softmax(1).numpy(), atol=1e-6)


def test_first_layers_of_an_encoder_that_was_not_pretrained_take_the_whole_rate(make_study):
    study = make_study(evaluation={"finetune_min_steps": 5, "layer_decay": 0.1})
    images, classes = two_classes(20, 25_000)
    task, encoder = task_of(study, classes, 10), encoder_of(study)

    def moved(pretrained):
        tuned = finetune(
            task, encoder, images, np.arange(10), study, FABRIC, NullProgress(), pretrained=pretrained
        )
        change = tuned.module.encoder.patch_embed.weight - encoder.patch_embed.weight
        return float(change.detach().abs().max())

    assert moved(pretrained=True) < 1e-9
    assert moved(pretrained=False) > 1e-4


def test_fine_tuning_in_half_precision_is_near_that_in_single(make_study):
    study = make_study(evaluation={"finetune_min_steps": 4})
    images, classes = two_classes(30, 25_000)
    task = task_of(study, classes, 20)
    found = [
        predict_by_finetuning(
            task,
            encoder_of(study),
            images,
            np.arange(20),
            study,
            make_fabric("cpu", precision, 1),
            NullProgress(),
        )[0]
        for precision in ("fp32", "bf16")
    ]
    assert not np.array_equal(*found)
    np.testing.assert_allclose(*found, atol=0.1)


def outputs_of_a_boaster(seed, classes=2):
    """Outputs three times as sure as they are right."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(400, classes))
    shares = softmax(logits, axis=1)
    truth = np.array([rng.choice(classes, p=share) for share in shares])
    return 3.0 * logits, truth


@pytest.mark.parametrize("classes", [2, 4])
def test_the_temperature_has_the_least_log_loss_of_all(classes):
    outputs, truth = outputs_of_a_boaster(0, classes)
    found = fit_temperature(outputs, truth)
    assert found == pytest.approx(3.0, rel=0.25)
    losses = {
        t: log_loss(truth, softmax(outputs / t, axis=1)) for t in np.linspace(found - 0.05, found + 0.05, 101)
    }
    assert found == pytest.approx(min(losses, key=losses.get), abs=1e-3)


def test_a_temperature_changes_neither_auroc_nor_the_most_probable_class():
    outputs, truth = outputs_of_a_boaster(1)
    plain, calmer = (softmax(outputs / t, axis=1) for t in (1.0, fit_temperature(outputs, truth)))
    assert roc_auc_score(truth, plain[:, 1]) == roc_auc_score(truth, calmer[:, 1])
    assert (plain.argmax(1) == calmer.argmax(1)).all()
    assert log_loss(truth, calmer) < log_loss(truth, plain)


def test_outputs_that_are_always_right_get_a_temperature_all_the_same():
    outputs = np.eye(2)[[0, 1, 0, 1]] * 5
    assert 0 < fit_temperature(outputs, np.array([0, 1, 0, 1])) < 1
    assert 1 < fit_temperature(outputs, np.array([1, 0, 1, 0])) < 100


def test_images_may_weigh_the_same(make_study):
    study = make_study(evaluation={"class_weights": "none"})
    task = task_of(study, [0] * 9 + [1, 0, 1], 10)
    rows = np.arange(10)
    outputs = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    found = task.criterion(rows, torch.device("cpu"))(outputs, rows)
    wanted = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(task.classes[rows]))
    assert float(found) == pytest.approx(float(wanted))


def test_held_out_patients_do_not_train(make_study):
    study = make_study(evaluation={"finetune_min_steps": 10, "validation_share": 0.3})
    images, classes = two_classes(60, 25_000)
    task = task_of(study, classes, 40)
    trained, looked_at, criterion_of = set(), set(), task.criterion

    def noted(train, device):
        criterion = criterion_of(train, device)

        def loss(outputs, rows):
            (trained if outputs.requires_grad else looked_at).update(rows.tolist())
            return criterion(outputs, rows)

        return loss

    task.criterion = noted
    finetune(task, encoder_of(study), images, np.arange(40), study, FABRIC, NullProgress())
    held = set(task.validation_rows(np.arange(40)).tolist())
    assert looked_at == held
    assert trained == set(range(40)) - held
