"""Retrieval: rankings are measured as scikit-learn does, and what can't be measured is refused before anything runs."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.tasks.retrieval import Retrieval, average_precision, precision_at
from hilum.common.config import parse_study
from hilum.common.errors import ConfigError, DataError
from studies import study_table


def table(**changes):
    return study_table(tasks={"classification": None, "retrieval": {"label": "kind", "k": 3}}, **changes)


STUDY = parse_study(table(evaluation={"protocols": ["knn"]}))


def site_of(train=40, test=20, seed=0, near=1.0):
    rng = np.random.default_rng(seed)
    count = train + test
    classes = np.arange(count) % 2
    features = (rng.normal(size=(count, 4)) + near * classes[:, None]).astype(np.float32)
    rows = np.arange(count)
    split = Split(rows[:train], rows[:train], rows[train:], rows)
    return SiteData("a", None, tuple("xy"[one] for one in classes), split, ""), features


def test_the_precisions_of_a_ranking_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    right = rng.random((30, 50)) < 0.3
    order = -np.arange(50)
    expected = [average_precision_score(one, order) for one in right]
    assert average_precision(right) == pytest.approx(expected, abs=1e-9)
    assert np.isnan(average_precision(np.zeros((1, 4), bool)))[0]
    assert precision_at(right, 5) == pytest.approx([one[:5].mean() for one in right])
    assert precision_at(right[:, :2], 5) == pytest.approx([one[:2].mean() for one in right])


def test_features_that_tell_classes_apart_find_them_and_others_find_what_is_common():
    found = {}
    for near in (0.0, 5.0):
        data, features = site_of(near=near)
        task = Retrieval.of(data, STUDY)
        train = task.training_rows(1.0)
        predicted = task.predict_by_neighbours(features[train], train, features[task.test])
        found[near] = {name: one.draws[0] for name, one in task.scores(predicted, np.ones((1, 20))).items()}
    assert found[5.0]["map"] > 0.95
    assert found[5.0]["precision_at_k"] > 0.95
    assert 0.35 < found[0.0]["map"] < 0.7
    assert set(found[0.0]) == set(task.section.metrics)


def test_an_image_whose_class_nobody_has_finds_nothing():
    data, features = site_of()
    alone = replace(data, labels=(*data.labels[:-1], "z"))
    task = Retrieval.of(alone, STUDY)
    train = task.training_rows(1.0)
    predicted = task.predict_by_neighbours(features[train], train, features[task.test])
    assert predicted[-1, 1] == 0
    assert np.isnan(predicted[-1, 0])
    scored = task.scores(predicted, np.ones((1, 20)))
    assert scored["map"].draws[0] == pytest.approx(np.nansum(predicted[:, 0]) / 20)
    assert scored["map"].note == "too_few"


def test_what_does_not_apply_to_retrieval_is_refused_by_the_study():
    with pytest.raises(
        ConfigError, match=r'does not apply to tasks.retrieval; write evaluation.protocols = \["knn"\]'
    ):
        parse_study(table(evaluation={"protocols": ["knn", "linear"]}))
    with pytest.raises(ConfigError, match=r"which tasks.retrieval has not; add `\[tasks.classification\]`"):
        parse_study(table(evaluation={"protocols": ["knn"]}, training={"select": "knn"}))
    both = parse_study(
        study_table(
            tasks={"retrieval": {"label": "kind"}},
            training={"select": "knn"},
            evaluation={"protocols": ["knn", "linear"]},
        )
    )
    assert [task.kind for task in both.tasks.given] == ["classification", "retrieval"]


def test_one_class_is_refused():
    data, _ = site_of()
    with pytest.raises(DataError, match="retrieval needs test patients of two classes in `kind`"):
        Retrieval.of(replace(data, labels=("x",) * 60), STUDY)
