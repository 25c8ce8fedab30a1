"""Neighbours, probe and fine-tuning: what each of them may rest on, and that short schedules train."""

import numpy as np
import pytest
import torch

from hilum.client.data.splits import Split
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.schedule import learning_rate_factor, step_middle
from hilum.client.tasks.classification import Classification
from hilum.client.tasks.finetuning import finetuning_steps, predict_by_finetuning
from hilum.client.tasks.probe import fit_probe
from hilum.common.encoders import build_encoder
from hilum.common.encoders.base import initialise
from hilum.common.progress import NullProgress


def task_of(study, labels, trained):
    """A classification whose first images are trained on, and the others tested; each is a patient of its own."""
    rows = np.arange(len(labels))
    split = Split(pretrain=rows[:trained], train=rows[:trained], test=rows[trained:], group=rows)
    return Classification([str(label) for label in labels], split, study, study.tasks.classification)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_every_step_of_a_schedule_trains(steps, warmup):
    factors = [learning_rate_factor(step_middle(index, steps), warmup) for index in range(steps)]
    assert min(factors) > 0
    assert max(factors) <= 1


@pytest.mark.parametrize(
    ("images", "epochs", "least", "expected"),
    [
        (3, 10, 1, (1, 10)),
        (3, 10, 200, (1, 200)),
        (100, 10, 200, (7, 29)),
        (100, 40, 200, (7, 40)),
        (16, 1, 1, (1, 1)),
    ],
)
def test_fine_tuning_takes_its_epochs_and_at_least_its_steps(make_study, images, epochs, least, expected):
    study = make_study(
        evaluation={"finetune_epochs": epochs, "finetune_min_steps": least, "finetune_batch_size": 16}
    )
    assert finetuning_steps(images, study) == expected


def test_fine_tuning_learns_from_six_images_what_no_constant_tells(make_study):
    """Bright against dark: with the few steps that six images make in some epochs it would say one class for all."""
    study = make_study(evaluation={"finetune_epochs": 1, "finetune_min_steps": 40})
    rng = np.random.default_rng(0)
    classes = np.arange(26) % 2
    images = (rng.integers(0, 20_000, (26, 1, 20, 20)) + 40_000 * classes[:, None, None, None]).astype(
        np.uint16
    )
    encoder = build_encoder(study)
    initialise(encoder, torch.Generator().manual_seed(1))
    task = task_of(study, classes, 6)
    fabric = make_fabric("cpu", "fp32", 1)
    scores, tuned = predict_by_finetuning(task, encoder, images, np.arange(6), study, fabric, NullProgress())
    assert (scores.argmax(1) == classes[6:]).all()
    assert (tuned.validated, tuned.temperature, tuned.steps) == (False, None, 40)


def features(count, informative, seed=0):
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    table = rng.normal(size=(count, 300)).astype(np.float32)
    table[:, :2] += informative * classes[:, None]
    return table, classes


def test_a_probe_chooses_a_strong_ridge_for_noise_and_a_weak_one_for_what_is_clear():
    noise, classes = features(60, 0.0)
    clear = noise[:, :2] + 6 * classes[:, None]
    found = [fit_probe(table.astype(float), classes, np.arange(60))._model.C for table in (noise, clear)]
    assert found[0] < found[1]


def test_a_probes_ridge_is_chosen_over_patients_and_not_images():
    """Each patient has four copies of one image: over images every ridge that learns them by heart looks best."""
    table, classes = features(20, 0.3)
    copies = np.repeat(np.arange(20), 4)
    noisy = table[copies].astype(float)
    by_patient = fit_probe(noisy, classes[copies], copies)._model.C
    by_image = fit_probe(noisy, classes[copies], np.arange(80))._model.C
    assert by_patient < by_image


def test_a_probe_of_more_features_than_images_is_the_same_in_their_span():
    from sklearn.linear_model import LogisticRegression

    table, classes = features(12, 2.0)
    wide = table.astype(float)
    probe = fit_probe(wide, classes, np.arange(12))
    plain = LogisticRegression(C=probe._model.C, class_weight="balanced", max_iter=2000, tol=1e-8).fit(
        wide, classes
    )
    others = features(8, 2.0, seed=5)[0].astype(float)
    np.testing.assert_allclose(probe.predict_proba(others), plain.predict_proba(others), atol=2e-3)


@pytest.mark.parametrize("counts", [(1, 1), (2, 9)])
def test_a_probe_of_too_few_patients_for_a_choice_still_fits(make_study, counts):
    classes = np.repeat([0, 1], counts)
    table = features(len(classes), 0.0)[0]
    task = task_of(make_study(), [*classes, 2], len(classes))
    scores = task.predict_by_probe(table, np.arange(len(classes)), table)
    assert scores.shape == (len(classes), 3)
    assert (scores[:, 2] == 0).all()


def test_neighbours_do_not_see_what_all_images_share(make_study):
    table, classes = features(40, 0.0)
    table = table[:, :4]
    table[:, 0] += 4 * classes
    task = task_of(make_study(evaluation={"knn_k": 5}), classes, 20)
    plain = task.predict_by_neighbours(table[:20], np.arange(20), table[20:])
    shifted = task.predict_by_neighbours(table[:20] + 1000, np.arange(20), table[20:] + 1000)
    np.testing.assert_allclose(shifted, plain, atol=1e-2)
    assert (plain.argmax(1) == classes[20:]).mean() > 0.9


def test_a_rare_class_weighs_as_much_as_a_frequent_one(make_study):
    """Nine of one class and one of another: the loss is the mean of the two classes' losses, not of the images'."""
    task = task_of(make_study(), [0] * 9 + [1, 0, 1], 10)
    rows = np.arange(10)
    outputs = torch.zeros(10, 2)
    outputs[:, 0] = 2.0
    found = task.criterion(rows, torch.device("cpu"))(outputs, rows)
    of_class = [float(torch.nn.functional.cross_entropy(outputs[:1], torch.tensor([k]))) for k in (0, 1)]
    assert float(found) == pytest.approx(np.mean(of_class))
