"""Intervals and comparisons from predictions: few patients, missing classes, predictions of one class."""

import numpy as np
import pytest

from hilum.client.data.splits import Split
from hilum.client.evaluation.measurements import Measurements
from hilum.client.tasks.base import Interval
from hilum.client.tasks.classification import Classification
from hilum.client.tasks.small_samples import patients_by_class, widened, widened_difference
from hilum.common.config import parse_study
from studies import study_table


def predicted(truth, classes=2, right=1.0, seed=0):
    """Probabilities, of which a share has the true class first."""
    rng = np.random.default_rng(seed)
    scores = rng.random((len(truth), classes)) * 0.5
    hit = rng.random(len(truth)) < right
    scores[np.flatnonzero(hit), np.asarray(truth)[hit]] += 1
    return scores / scores.sum(1, keepdims=True)


def table(truth, arms, classes=2, group=None, site="site-0"):
    """The table of test images of these classes; each class has an image that is trained on besides."""
    truth = np.asarray(truth, np.int64)
    group = np.arange(len(truth)) if group is None else np.asarray(group)
    test = np.arange(len(truth))
    trained = np.arange(len(truth), len(truth) + classes)
    of_all = np.concatenate([group, group.max() + 1 + np.arange(classes)])
    study = parse_study(study_table())
    labels = [str(k) for k in [*truth, *range(classes)]]
    task = Classification(labels, Split(trained, trained, test, of_all), study, study.tasks.classification)
    measured = Measurements(site, task, group, 200, 3)
    for arm, scores in arms.items():
        measured.add("linear", 1.0, arm, np.asarray(scores, float))
    return measured.table()


def arms(truth, classes=2):
    return {"federated": predicted(truth, classes), "raw": predicted(truth, classes, 0.2, seed=1)}


@pytest.mark.parametrize("truth", [[0, 1], [0, 0, 1, 1], [0] * 4 + [1] * 40, [0, 0, 0, 0, 0, 1]])
def test_too_few_patients_of_a_class_are_told_and_never_compared(truth):
    found = table(truth, arms(truth))
    assert {row.note for row in found.rows} <= {"too_few", "one_class"}
    assert found.comparisons == ()
    for row in found.rows:
        assert row.ci_high - row.ci_low > 0.15


def test_images_are_not_patients():
    """Forty images of eight patients: four of a class are too few."""
    truth = np.repeat([0, 0, 0, 0, 1, 1, 1, 1], 5)
    assert table(truth, arms(truth), group=np.repeat(np.arange(8), 5)).comparisons == ()
    assert table(truth, arms(truth)).comparisons


@pytest.mark.parametrize("count", [5, 12, 40])
def test_a_perfect_score_has_an_interval_and_two_of_them_no_significance(count):
    truth = [0] * count + [1] * count
    found = table(truth, {"federated": predicted(truth), "raw": predicted(truth, seed=4)})
    for row in found.rows:
        if row.metric in ("auroc", "balanced_accuracy"):
            assert row.value == row.ci_high == 1.0
            assert row.ci_low < 1 - 0.5 / count
        else:
            assert row.ci_low <= max(0.0, row.value - 0.5 / count) + 1e-12
            assert row.ci_high >= row.value + 0.5 / count
    for one in found.comparisons:
        assert one.metric in ("ece", "brier") or one.difference == 0.0
        assert one.ci_low < 0 < one.ci_high


def test_a_clear_difference_is_still_clear():
    truth = [0] * 12 + [1] * 12
    found = table(
        truth,
        {"federated": predicted(truth), "raw": np.full((24, 2), 0.5) + 1e-3 * predicted(truth, right=0.0)},
    )
    [auroc] = [one for one in found.comparisons if one.metric == "auroc"]
    assert auroc.ci_low > 0


def test_a_class_without_test_patients_is_told_and_costs_nothing_else():
    truth = [0] * 10 + [1] * 10
    found = table(truth, arms(truth, 3), classes=3)
    assert {row.note for row in found.rows} == {"untested_classes"}
    ours = {row.metric: row.value for row in found.rows if row.arm == "federated"}
    assert (ours["auroc"], ours["balanced_accuracy"]) == (1.0, 1.0)
    assert len(found.comparisons) == 4


def test_one_class_for_everybody_is_told_and_its_accuracy_never_compared():
    truth = [0] * 10 + [1] * 10
    ranked = np.stack([0.9 - 0.2 * np.asarray(truth), 0.1 + 0.2 * np.asarray(truth)], 1)
    for scores, compared in ((np.tile([0.7, 0.3], (20, 1)), []), (ranked, ["auroc"])):
        found = table(truth, {"federated": predicted(truth), "scratch": scores})
        notes = {(row.arm, row.note) for row in found.rows}
        assert notes == {("federated", ""), ("scratch", "one_class")}
        assert [one.metric for one in found.comparisons] == compared


def test_three_classes_have_intervals_too():
    truth = [0] * 8 + [1] * 8 + [2] * 8
    for row in table(truth, arms(truth, 3), classes=3).rows:
        assert 0 <= row.ci_low <= row.value <= row.ci_high <= 1
        assert row.ci_low < row.ci_high


@pytest.mark.parametrize("metric", ["auroc", "balanced_accuracy"])
@pytest.mark.parametrize("patients", [(1, 1), (2, 5), (12, 12), (7, 8, 9)])
def test_small_sample_intervals_narrow_with_patients_and_mirror(metric, patients):
    for value in (0.0, 0.3, 0.5, 0.9, 1.0):
        few = widened(metric, Interval(value, value, value), patients)
        many = widened(metric, Interval(value, value, value), [10 * n for n in patients])
        assert 0 <= few.low <= value <= few.high <= 1
        assert few.high - few.low > many.high - many.low > 0
        mirrored = widened(metric, Interval(1 - value, 1 - value, 1 - value), patients)
        assert mirrored.low == pytest.approx(1 - few.high, abs=1e-6)


def test_newcombes_interval_of_a_published_example():
    """Method 5 for an area of 1 over 10 and 10 patients solves 1 - t = z^2 t (1 + 9 ((1-t)/(2-t) + t/(1+t))) / 100."""
    low = widened("auroc", Interval(1.0, 1.0, 1.0), (10, 10)).low
    shape = 1 + 9 * ((1 - low) / (2 - low) + low / (1 + low))
    assert 1 - low == pytest.approx(1.959964**2 * low * shape / 100, rel=1e-5)


def test_a_difference_is_known_to_half_a_patient():
    assert widened_difference(Interval(1.0, 1.0, 1.0), (5, 9)) == Interval(1.0, 0.9, 1.0)
    wide = Interval(0.1, -0.4, 0.5)
    assert widened_difference(wide, (5, 9)) == wide


def test_patients_are_counted_by_class():
    group, truth = np.array([0, 0, 1, 2, 2]), np.array([0, 0, 0, 1, 0])
    assert patients_by_class(group, truth, 3) == (3, 1, 0)
