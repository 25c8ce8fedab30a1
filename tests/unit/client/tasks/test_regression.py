"""Regression: metrics equal those of others, intervals hold what they promise, and no patient helps to predict itself."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.preprocessing import StandardScaler

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.tasks.conformal import half_width, held_out, least_patients
from hilum.client.tasks.number_metrics import mean_of, r2, spearman
from hilum.client.tasks.regression import Regression, ScaledLinear
from hilum.client.tasks.ridge import STRENGTHS, fit_ridge
from hilum.common.config import parse_study
from hilum.common.encoders import build_encoder
from hilum.common.errors import DataError
from studies import study_table

STUDY = parse_study(study_table(tasks={"classification": None, "regression": {"label": "age"}}))


def site_of(train=80, test=40, images_each=1, seed=0, constant=False):
    """Patients whose number is the sum of their three features, less noise; the last ones are tested."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(train + test), images_each)
    features = rng.normal(size=(len(group), 3)).astype(np.float32)
    values = 50 + 10 * features.sum(1) + rng.normal(size=len(group)) * 5
    if constant:
        values[:] = 7
    rows = np.arange(len(group))
    tested = group >= train
    split = Split(rows[~tested], rows[~tested], rows[tested], group)
    return SiteData("a", None, tuple(f"{value:.3f}" for value in values), split, ""), features


def test_the_metrics_equal_those_of_scikit_learn_and_scipy():
    rng = np.random.default_rng(0)
    truth = 1e4 + rng.normal(size=50)
    predicted = truth + rng.normal(size=50)
    weights = np.concatenate([np.ones((1, 50)), rng.integers(1, 4, (3, 50)).astype(float)])
    expected = [r2_score(truth, predicted, sample_weight=one) for one in weights]
    assert r2(predicted, truth, weights) == pytest.approx(expected, abs=1e-6)
    expected = [mean_absolute_error(truth, predicted, sample_weight=one) for one in weights]
    assert mean_of(np.abs(truth - predicted), weights) == pytest.approx(expected, abs=1e-9)
    assert spearman(predicted, truth, weights)[0] == pytest.approx(spearmanr(predicted, truth)[0], abs=1e-9)
    # Of ranks among all images, a resample has the correlation of its own copies.
    ranks = [np.argsort(np.argsort(one)) for one in (predicted, truth)]
    copies = np.repeat(np.arange(50), weights[1].astype(int))
    expected = np.corrcoef(ranks[0][copies], ranks[1][copies])[0, 1]
    assert spearman(predicted, truth, weights)[1] == pytest.approx(expected, abs=1e-9)


def test_predicting_the_mean_is_nothing_and_worse_has_an_end():
    truth, one = np.array([1.0, 2.0, 6.0]), np.ones((1, 3))
    assert r2(np.full(3, 3.0), truth, one)[0] == pytest.approx(0)
    assert r2(np.full(3, 300.0), truth, one)[0] == -1
    assert spearman(np.full(3, 3.0), truth, one)[0] == 0
    assert spearman(-truth, truth, one)[0] == pytest.approx(-1)
    assert np.isnan(r2(truth, np.ones(3), one)[0])
    assert np.isnan(r2(truth, np.array([1.1, 2.7, 9.3]), np.array([[0.0, 0.0, 3.0]]))[0])


@pytest.mark.parametrize("width", [3, 200])
def test_the_probe_is_a_ridge_regression_of_the_best_strength(width):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, width)).astype(np.float32)
    values = features[:, 0] * 3 + rng.normal(size=60)
    patients = np.arange(60) // 2
    others = rng.normal(size=(20, width)).astype(np.float32)
    found = fit_ridge(features, values, patients)(others)
    scaler = StandardScaler().fit(features.astype(float))
    known, unknown = (scaler.transform(some.astype(float)) for some in (features, others))
    by_strength = [Ridge(alpha=one * width).fit(known, values).predict(unknown) for one in STRENGTHS]
    assert min(np.abs(found - one).max() for one in by_strength) < 1e-6
    assert np.allclose(fit_ridge(features[:4], values[:4], patients[:4])(others).shape, (20,))


@pytest.mark.parametrize(("images_each", "aim"), [(1, 0.9), (3, 0.8)])
def test_intervals_hold_at_least_as_many_new_patients_as_they_promise(images_each, aim):
    rng, held = np.random.default_rng(2), []
    patients = np.repeat(np.arange(30), images_each)
    for _ in range(2000):
        residuals = np.abs(
            rng.normal(size=30 + 1)[np.append(patients, np.full(images_each, 30))]
            + 0.3 * rng.normal(size=31 * images_each)
        )
        held.append(
            (residuals[len(patients) :] <= half_width(residuals[: len(patients)], patients, aim)).all()
        )
    assert aim - 0.02 < np.mean(held) < aim + 0.05


def test_an_interval_takes_enough_patients_and_never_most_of_them():
    assert [least_patients(aim) for aim in (0.5, 0.9, 0.95)] == [1, 9, 19]
    assert held_out(np.arange(17), 0.9, seed=1) is None
    patients = np.repeat(np.arange(40), 2)
    aside = held_out(patients, 0.9, seed=1)
    assert aside.sum() == 20
    assert not set(patients[aside]) & set(patients[~aside])
    assert (aside == held_out(patients, 0.9, seed=1)).all()
    assert (aside != held_out(patients, 0.9, seed=2)).any()


@pytest.mark.parametrize("how", ["predict_by_probe", "predict_by_neighbours"])
def test_numbers_are_predicted_with_intervals_that_cover(how):
    data, features = site_of(train=120, test=200)
    task = Regression.of(data, STUDY)
    train = task.training_rows(1.0)
    predicted = getattr(task, how)(features[train], train, features[task.test])
    scores = {name: one.draws[0] for name, one in task.scores(predicted, np.ones((1, 200))).items()}
    assert scores["r2"] > 0.5
    assert scores["spearman"] > 0.7
    assert 0.82 < scores["coverage"] < 0.98
    assert scores["interval_width"] > 2 * scores["mae"]
    assert set(scores) == set(task.section.metrics)
    few = task.training_rows(0.1)
    predicted = getattr(task, how)(features[few], few, features[task.test])
    assert set(task.scores(predicted, np.ones((1, 200)))) == {"r2", "spearman", "mae"}


def test_what_gives_everybody_one_number_is_told_and_not_compared():
    data, _ = site_of()
    task = Regression.of(data, STUDY)
    predicted = np.stack([np.full(40, 50.0), np.full(40, np.nan), np.full(40, np.nan)], 1)
    scored = task.scores(predicted, np.ones((1, 40)))
    assert {one.note for one in scored.values()} == {"one_number"}
    assert not any(one.comparable for one in scored.values())


def test_few_test_patients_are_told():
    data, features = site_of(train=30, test=9)
    task = Regression.of(data, STUDY)
    train = task.training_rows(1.0)
    found = task.scores(task.predict_by_probe(features[train], train, features[task.test]), np.ones((1, 9)))
    assert {one.note for one in found.values()} == {"too_few"}


def test_labels_of_one_number_are_refused():
    with pytest.raises(DataError, match="a: the test patients have one number or none in `age`"):
        Regression.of(site_of(constant=True)[0], STUDY)
    data, _ = site_of(train=0)
    with pytest.raises(DataError, match="no image with a number in `age` is trained on"):
        Regression.of(data, STUDY)


def test_the_head_begins_at_the_mean_and_keeps_the_unit():
    data, _ = site_of()
    task = Regression.of(data, STUDY)
    encoder = build_encoder(STUDY)
    head = task.head(encoder)
    assert isinstance(head, ScaledLinear)
    trained = task.values[data.split.train]
    maps = encoder.feature_maps(torch.rand(2, 1, 16, 16))
    assert head(maps).detach().numpy() == pytest.approx(np.full((2, 1), trained.mean()), rel=1e-5)
    assert float(head.scale) == pytest.approx(trained.std(), rel=1e-5)
    loss = task.criterion(data.split.train, torch.device("cpu"))
    far = torch.full((80, 1), float(trained.mean() + 100 * trained.std()))
    assert float(loss(far, data.split.train)) == pytest.approx(99.5, abs=0.5)  # smooth L1 is linear far off
    assert task.predictions(head(maps).detach()).shape == (2, 3)
