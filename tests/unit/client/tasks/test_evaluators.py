"""Neighbours, probe and fine-tuning: what each of them may rest on, and that short schedules train."""

import numpy as np
import pytest
import torch

from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.schedule import learning_rate_factor, step_middle
from hilum.client.tasks.classification import (
    LabelledRows,
    finetuning_steps,
    predict_by_finetuning,
    predict_by_neighbours,
    predict_by_probe,
)
from hilum.client.tasks.probe import fit_probe
from hilum.common.encoders import build_encoder
from hilum.common.encoders.base import initialise
from hilum.common.progress import NullProgress


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
    train = LabelledRows(np.arange(6), classes[:6], 2)
    fabric = make_fabric("cpu", "fp32", 1)
    scores = predict_by_finetuning(encoder, images, train, np.arange(6, 26), study, fabric, NullProgress())
    assert (scores.argmax(1) == classes[6:]).all()


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
def test_a_probe_of_too_few_patients_for_a_choice_still_fits(counts):
    classes = np.repeat([0, 1], counts)
    table = features(len(classes), 0.0)[0]
    scores = predict_by_probe(
        table, LabelledRows(np.arange(len(classes)), classes, 3), table, np.arange(len(classes))
    )
    assert scores.shape == (len(classes), 3)
    assert (scores[:, 2] == 0).all()


def test_neighbours_do_not_see_what_all_images_share():
    table, classes = features(40, 0.0)
    table = table[:, :4]
    table[:, 0] += 4 * classes
    train = LabelledRows(np.arange(20), classes[:20], 2)
    plain = predict_by_neighbours(table[:20], train, table[20:], 5)
    shifted = predict_by_neighbours(table[:20] + 1000, train, table[20:] + 1000, 5)
    np.testing.assert_allclose(shifted, plain, atol=1e-2)
    assert (plain.argmax(1) == classes[20:]).mean() > 0.9
