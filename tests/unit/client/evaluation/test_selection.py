"""How a site scores an encoder: on labelled training patients, each predicted from the others."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hilum.client.data.site_data import SiteData, pooled
from hilum.client.data.splits import Split
from hilum.client.evaluation import selection
from hilum.client.evaluation.selection import (
    score_encoder,
    score_weights,
    scorer,
    validation_folds,
    validation_patients,
)
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.site import pretrain_alone
from hilum.client.tasks.features import encoder_features
from hilum.common.errors import DataError
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated

FABRIC = make_fabric("cpu", "fp32", 1)


def site_of(name="site-0", patients=16, seed=0):
    """Two images a patient, bright ones of class b; the last quarter of the patients is tested."""
    rng = np.random.default_rng(seed)
    count = 2 * patients
    group = np.arange(count) // 2
    bright = group % 2 == 1
    images = rng.integers(0, 30_000, (count, 1, 20, 20)) + np.where(bright, 4_000, 0)[:, None, None, None]
    tested = group >= 0.75 * patients
    rows = np.arange(count)
    split = Split(rows[~tested], rows[~tested], rows[tested], group)
    return SiteData(
        name, images.astype(np.uint16), tuple("b" if one else "a" for one in bright), split, f"{name}{seed}"
    )


def test_the_score_is_the_auroc_of_neighbours_among_other_patients(make_study):
    data, study = site_of(), make_study(evaluation={"knn_k": 3})
    encoder = build_method(study).encoder
    found = score_encoder(encoder, data, study, FABRIC)
    rows, fold = validation_folds(data, study.study.seed)
    table = encoder_features(encoder, data.images, rows, study, FABRIC)
    truth = np.array([data.labels[row] == "b" for row in rows])
    scores = np.zeros(len(rows))
    for number in set(fold.tolist()):
        known, held = fold != number, fold == number
        centre = table[known].mean(0)
        one, other = ((part - centre).astype(np.float64) for part in (table[known], table[held]))
        one, other = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (one, other))
        for place, vector in zip(np.flatnonzero(held), other, strict=True):
            distance = 1 - one @ vector
            near = np.argsort(distance)[:3]
            weight = 1 / distance[near]
            scores[place] = weight[truth[known][near]].sum() / weight.sum()
    assert found == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    assert found == score_encoder(encoder, data, study, FABRIC)


def test_no_test_patient_is_looked_at_and_no_patient_is_in_two_folds(make_study):
    data, study = site_of(), make_study()
    rows, fold = validation_folds(data, 3)
    assert not set(rows.tolist()) & set(data.split.test.tolist())
    patients = data.split.group[rows]
    assert all(len(set(fold[patients == one].tolist())) == 1 for one in set(patients.tolist()))
    assert set(fold.tolist()) == set(range(5))
    weights = get_federated(build_method(study))
    score = score_weights(weights, data, study, device="cpu")
    spoiled = data.images.copy()
    spoiled[data.split.test] = 65_535
    assert score_weights(weights, replace(data, images=spoiled), study, device="cpu") == score


def test_many_images_are_a_sample_that_stays_the_same(make_study, monkeypatch):
    data, study = site_of(patients=40), make_study()
    monkeypatch.setattr(selection, "_MAX_IMAGES", 20)
    rows, fold = validation_folds(data, study.study.seed)
    assert len(rows) == len(fold) == 20
    assert np.array_equal(validation_folds(data, study.study.seed)[0], rows)
    # Those of the sample stand behind the score, and no others.
    assert validation_patients(data, study) == len(np.unique(data.split.group[rows])) < 30


def test_too_few_labelled_patients_are_told():
    with pytest.raises(
        DataError, match=r'3 labelled training patients are too few for training.select = "knn"'
    ):
        validation_folds(site_of(patients=4), 3)


@pytest.mark.parametrize("select", ["loss", "knn"])
def test_a_site_alone_keeps_its_best_round_also_when_it_was_killed(make_study, tmp_path, select):
    data = site_of()
    study = make_study(training={"select": select, "base_learning_rate": 0.05}, federation={"rounds": 4})
    told = iter([0.3, 0.9, 0.5, 0.4])
    kept = []

    def scripted(_sent, weights):
        kept.append(weights.copy())
        return next(told)

    best = pretrain_alone(data, study, tmp_path / "scripted", device="cpu", score=scripted)
    assert best.weights.tobytes() == kept[1].tobytes()
    assert best.last.tobytes() == kept[3].tobytes()
    assert best.round == 2
    whole = pretrain_alone(
        data, study, tmp_path / "whole", device="cpu", score=scorer(data, study, device="cpu")
    )

    class Stop:
        def advance(self, done, note=""):
            if done == 2:
                raise KeyboardInterrupt

    score = scorer(data, study, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        pretrain_alone(data, study, tmp_path / "cut", device="cpu", score=score, progress=Stop())
    assert (
        pretrain_alone(data, study, tmp_path / "cut", device="cpu", score=score).weights.tobytes()
        == whole.weights.tobytes()
    )


def test_a_score_that_is_no_number_never_wins(make_study, tmp_path):
    data, study = site_of(), make_study(federation={"rounds": 3})
    told, kept = iter([0.5, float("nan"), float("nan")]), []

    def scripted(_sent, weights):
        kept.append(weights.copy())
        return next(told)

    best = pretrain_alone(data, study, tmp_path, device="cpu", score=scripted)
    assert (best.weights.tobytes(), best.round) == (kept[0].tobytes(), 1)


def test_sites_in_one_place_can_be_scored_too_without_mixing_patients(make_study):
    sites = [site_of("a"), site_of("b", seed=1)]
    everywhere = pooled(sites)
    assert len(np.unique(everywhere.split.group)) == 24
    rows, _ = validation_folds(everywhere, 3)
    assert len(rows) == 48
    assert (
        0
        <= score_weights(get_federated(build_method(make_study())), everywhere, make_study(), device="cpu")
        <= 1
    )
