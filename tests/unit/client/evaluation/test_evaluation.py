import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

from hilum.client.data.splits import labelled_share, patient_groups, split_patients
from hilum.client.evaluation.bootstrap import interval, patient_draws
from hilum.client.state.catalogue import Item
from hilum.client.tasks.class_metrics import auroc, balanced_accuracy, brier, ece


def item(number, patient):
    name = f"{number:03d}"
    return Item(name, "image", "radiograph", "display", name * 10, (8, 8), (), (), name, name, name, patient)


def make(patients, labels):
    items = [item(n, p) for n, p in enumerate(patients)]
    label_of = {i.item_key: label for i, label in zip(items, labels, strict=True) if label is not None}
    return items, label_of


def split(items, label_of, patient_of=None, seed=1, share=0.3):
    return split_patients(items, label_of, patient_of or {}, test_share=share, seed=seed)


@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_agree_with_scikit_learn_under_weights(classes):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, 60)
    scores = rng.dirichlet(np.ones(classes), 60).round(1)  # ties included
    weights = np.stack([np.ones(60), rng.integers(0, 4, 60)]).astype(float)
    for row, weight in enumerate(weights):
        if classes == 2:
            expected = roc_auc_score(truth, scores[:, 1], sample_weight=weight)
        else:
            expected = np.mean(
                [roc_auc_score(truth == k, scores[:, k], sample_weight=weight) for k in range(classes)]
            )
        assert auroc(scores, truth, weights)[row] == pytest.approx(expected)
        expected = balanced_accuracy_score(truth, scores.argmax(1), sample_weight=weight)
        assert balanced_accuracy(scores, truth, weights)[row] == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 4])
def test_calibration_metrics_agree_with_scikit_learn_under_weights(classes):
    rng = np.random.default_rng(3)
    truth = rng.integers(0, classes, 90)
    scores = rng.dirichlet(np.ones(classes), 90)
    scores[:4, 0], scores[:4, 1:] = 1.0, 0.0  # of the edges of bins too
    weights = np.stack([np.ones(90), rng.integers(0, 4, 90)]).astype(float)
    for row, weight in enumerate(weights):
        drawn = np.repeat(np.arange(90), weight.astype(int))
        squares, gaps = [], []
        for k in [1] if classes == 2 else range(classes):
            happened, said = (truth == k)[drawn], scores[drawn, k]
            squares.append(brier_score_loss(happened, said))
            share, mean = calibration_curve(happened, said, n_bins=15)
            place = np.searchsorted(np.linspace(0, 1, 16)[1:-1], said)
            counts = np.bincount(place, minlength=15)
            gaps.append(np.sum(counts[counts > 0] * np.abs(share - mean)) / len(drawn))
        assert brier(scores, truth, weights)[row] == pytest.approx(np.mean(squares), abs=1e-12)
        assert ece(scores, truth, weights)[row] == pytest.approx(np.mean(gaps), abs=1e-12)


def test_calibration_by_hand():
    """Four images at 0.9, of which three are of the class: said too high by 0.15; two at 0.2, none of it."""
    up = np.array([0.9, 0.9, 0.9, 0.9, 0.2, 0.2])
    scores, truth = np.stack([1 - up, up], 1), np.array([1, 1, 1, 0, 0, 0])
    weights = np.ones((1, 6))
    assert ece(scores, truth, weights)[0] == pytest.approx((4 * 0.15 + 2 * 0.2) / 6)
    assert brier(scores, truth, weights)[0] == pytest.approx((3 * 0.01 + 0.81 + 2 * 0.04) / 6)


def test_a_metric_is_of_the_classes_that_are_tested():
    scores = np.array([[0.2, 0.7, 0.1], [0.7, 0.2, 0.1], [0.4, 0.5, 0.1]])
    weights = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], float)
    values = auroc(scores, np.array([1, 0, 1]), weights)
    assert np.isnan(values).tolist() == [False, True, False]
    assert values[0] == 1.0
    assert balanced_accuracy(scores, np.array([1, 0, 1]), weights)[0] == 1.0


def draw(group, truth=None, draws=200, seed=3, site="a"):
    group = np.asarray(group)
    truth = np.zeros(len(group), np.int64) if truth is None else np.asarray(truth)
    return patient_draws(group, truth, draws, seed=seed, site=site)


def test_draws_take_patients_whole():
    draws = draw([5, 5, 9, 2, 2, 2])
    assert draws[0].tolist() == [1] * 6
    assert np.array_equal(draws[:, 0], draws[:, 1])
    assert np.array_equal(draws[:, 3], draws[:, 5])
    assert np.all(draws[1:, [0, 2, 3]].sum(1) == 3)


def test_no_resample_lacks_a_class():
    """One patient of class 1, another of both classes: each kind keeps its number in every resample."""
    draws = draw([0, 1, 2, 3, 4, 4], [0, 0, 0, 1, 0, 1])
    assert np.all(draws[1:, :3].sum(1) == 3)
    assert np.all(draws[1:, 3:] == 1)
    assert len(np.unique(draws[1:, :3], axis=0)) > 5


def test_sites_of_one_size_do_not_draw_alike():
    patients = np.arange(20)
    assert np.array_equal(draw(patients), draw(patients))
    assert not np.array_equal(draw(patients), draw(patients, site="b"))
    assert not np.array_equal(draw(patients), draw(patients, seed=4))


def test_the_interval_covers_a_known_mean():
    """A 95 % interval of a mean over 100 patients covers the truth about 95 times in 100."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = rng.normal(size=100)
        draws = draw(np.arange(100), draws=300, seed=trial)
        known = interval((draws @ values) / draws.sum(1))
        covered += known.low <= 0 <= known.high
    assert 178 <= covered <= 198


def test_no_patient_is_on_both_sides_and_untested_patients_are_pretrained_on():
    patients = [f"p{n // 2}" for n in range(40)]
    labels = ["1" if n % 3 == 0 else "0" for n in range(40)]
    labels[5] = None
    items, label_of = make(patients, labels)
    found = split(items, label_of)
    tested = {patients[row] for row in found.test}
    assert tested
    assert not tested & {patients[row] for row in found.pretrain}
    assert {patients[row] for row in found.pretrain} | tested == set(patients)
    assert set(found.train) <= set(found.pretrain)
    assert 5 not in found.train


def test_an_unlabelled_image_of_a_test_patient_is_not_pretrained_on():
    items, label_of = make(
        ["a", "a", "b", "b", "c", "c", "d", "d"], ["1", None, "1", None, "0", None, "0", None]
    )
    found = split(items, label_of, share=0.5)
    for row in found.test:
        assert row + 1 not in found.pretrain


def test_one_patient_under_two_names_is_one_patient():
    """The archive knows a and b, the label table says both are x; c is y, and so is another a."""
    items = [item(0, "a"), item(1, "b"), item(2, "c"), item(3, "a"), item(4, "d")]
    stated = {"000": "x", "001": "x", "002": "y", "003": "y"}
    assert patient_groups(items, stated).tolist() == [0, 0, 0, 0, 1]
    assert patient_groups(items, {}).tolist() == [0, 1, 2, 0, 3]


def test_a_split_depends_on_content_and_seed_alone():
    patients, labels = [f"p{n}" for n in range(30)], ["01"[n % 2] for n in range(30)]
    items, label_of = make(patients, labels)
    renamed = [item(n, f"other-{n}") for n in range(30)]
    assert split(items, label_of).test.tolist() == split(renamed, label_of).test.tolist()
    assert split(items, label_of, seed=2).test.tolist() != split(items, label_of).test.tolist()


@given(st.integers(2, 12), st.integers(2, 12), st.floats(0.05, 0.9))
def test_every_class_of_two_patients_is_trained_on_and_tested(zeros, ones, share):
    labels = ["0"] * zeros + ["1"] * ones
    items, label_of = make([f"p{n}" for n in range(len(labels))], labels)
    found = split(items, label_of, share=share)
    for rows in (found.train, found.test):
        assert {labels[row] for row in rows} == {"0", "1"}


def test_a_class_of_one_patient_is_only_trained_on():
    items, label_of = make(["a", "b", "c"], ["0", "0", "1"])
    assert 2 in split(items, label_of).train


def test_smaller_shares_of_labels_are_parts_of_larger_ones_and_hold_every_class():
    labels = ["1" if n % 4 == 0 else "0" for n in range(80)]
    items, label_of = make([f"p{n}" for n in range(80)], labels)
    found = split(items, label_of)
    shares = [labelled_share(found, labels, share, seed=1) for share in (0.01, 0.1, 0.5, 1.0)]
    for small, large in itertools.pairwise(shares):
        assert set(small) <= set(large)
        assert {labels[row] for row in small} == {"0", "1"}
    assert set(shares[-1]) == set(found.train)
