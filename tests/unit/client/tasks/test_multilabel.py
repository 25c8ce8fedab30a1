"""Multi-label classification: cells of several findings, each measured as scikit-learn does, those of few patients left out by name."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.evaluation.finding_table import finding_table
from hilum.client.state.findings import check_is_findings, findings_of
from hilum.client.tasks.multilabel import Multilabel
from hilum.common.config import parse_study
from hilum.common.encoders import build_encoder
from hilum.common.errors import DataError, LabelError
from studies import study_table

STUDY = parse_study(study_table(tasks={"classification": None, "multilabel": {"label": "findings"}}))


def site_of(train=60, test=40, seed=0):
    """Findings a and b that features show, and a rare one that one test patient has."""
    rng = np.random.default_rng(seed)
    count = train + test
    features = rng.normal(size=(count, 5)).astype(np.float32)
    shown = [
        "|".join(
            name
            for name, has in (("a", one[0] > 0), ("b", one[1] > 0.5), ("rare", row in (0, 1, train)))
            if has
        )
        for row, one in enumerate(features)
    ]
    rows = np.arange(count)
    split = Split(rows[:train], rows[:train], rows[train:], rows)
    labels = tuple(one or "no finding" for one in shown)
    return SiteData("s", None, labels, split, ""), features


@pytest.mark.parametrize(
    ("cell", "findings"),
    [
        ("Effusion|Infiltration", {"Effusion", "Infiltration"}),
        (" Effusion ; Mass;", {"Effusion", "Mass"}),
        ("No Finding", set()),
        ("no-finding", set()),
        ("Mass", {"Mass"}),
    ],
)
def test_a_cell_holds_findings_or_says_that_there_is_none(cell, findings):
    assert findings_of(cell, "No Finding") == findings


def test_findings_that_are_spelled_twice_or_beside_none_are_refused():
    with pytest.raises(LabelError, match="in several ways"):
        check_is_findings("f", Counter({"Mass|Effusion": 3, "mass": 1}), "No Finding")
    with pytest.raises(LabelError, match="2 images with a finding beside `No Finding`"):
        check_is_findings("f", Counter({"Mass|No Finding": 2, "Mass": 1}), "No Finding")
    with pytest.raises(LabelError, match="names 65 findings, and 64 are the most"):
        check_is_findings("f", Counter({f"f{n}x": 1 for n in range(65)}), "No Finding")
    check_is_findings("f", Counter({"Mass|Effusion": 3, "No Finding": 1}), "No Finding")


@pytest.mark.parametrize("how", ["predict_by_probe", "predict_by_neighbours"])
def test_each_finding_is_predicted_by_itself_and_its_area_is_that_of_scikit_learn(how):
    data, features = site_of()
    task = Multilabel.of(data, STUDY)
    assert task.names == ("a", "b", "rare")
    assert task.tested == [0, 1]
    train = task.training_rows(1.0)
    predicted = getattr(task, how)(features[train], train, features[task.test])
    weights = np.concatenate(
        [np.ones((1, 40)), np.random.default_rng(1).integers(1, 4, (2, 40)).astype(float)]
    )
    scored = task.scores(predicted, weights)["mean_auroc"]
    for draw, weight in zip(scored.draws, weights, strict=True):
        areas = [
            roc_auc_score(task.truth[task.test, place], predicted[:, place], sample_weight=weight)
            for place in (0, 1)
        ]
        assert draw == pytest.approx(np.mean(areas), abs=1e-6)
    assert scored.draws[0] > 0.75
    assert scored.note == "untested_classes"


def test_findings_of_few_patients_are_left_out_by_name():
    data, _ = site_of()
    table = finding_table(data, STUDY.tasks.multilabel)
    assert [line.name for line in table.lines] == ["a", "b", "rare", "No Finding", None]
    assert table.lines[2].train.patients == 2
    assert table.warnings == (
        "left out of the evaluation, for fewer than 5 test patients with or without: `rare` (1 with, 39 without)",
    )


def test_the_loss_weighs_both_kinds_of_a_finding_alike_and_passes_over_what_training_lacks():
    data, _ = site_of()
    task = Multilabel.of(data, STUDY)
    train = np.arange(2, 60)  # without the rare finding
    loss = task.criterion(train, torch.device("cpu"))
    outputs = torch.randn(58, 3, generator=torch.Generator().manual_seed(0))
    wanted = torch.from_numpy(task.truth[train]).float()
    share = wanted.mean(0)
    expected = [
        torch.nn.BCEWithLogitsLoss(pos_weight=(1 - share[k]) / share[k])(outputs[:, k], wanted[:, k])
        for k in (0, 1)
    ]
    assert float(loss(outputs, train)) == pytest.approx(float(sum(expected) / 2), abs=1e-6)
    other = outputs.clone()
    other[:, 2] += 9
    assert float(loss(other, train)) == pytest.approx(float(loss(outputs, train)), abs=1e-6)
    encoder = build_encoder(STUDY)
    outputs = task.head(encoder)(encoder.feature_maps(torch.rand(2, 1, 16, 16))).detach()
    assert np.array_equal(task.predictions(outputs), np.full((2, 3), 0.5))


def test_a_site_without_a_finding_that_can_be_tested_is_refused():
    data, _ = site_of()
    bare = SiteData("s", None, ("No Finding",) * 100, data.split, "")
    with pytest.raises(DataError, match="no finding in `findings` has test patients with it and without it"):
        Multilabel.of(bare, STUDY)
