"""A study of several tasks: one split, and each task measured, judged and reported by itself."""

import csv
import json
import shutil

import numpy as np
import pytest

from hilum.client.data.kept_split import KeptSplit, Side
from hilum.client.data.site_data import open_site
from hilum.client.evaluation.protocol import evaluate_site
from hilum.client.pretraining.device import make_fabric
from hilum.common.config import parse_study
from hilum.common.errors import LabelError
from hilum.common.progress import NullProgress
from hilum.simulations.archives import find_sites, index_sites
from hilum.simulations.run import simulate
from hilum.simulations.table import print_table
from studies import study_table

EVALUATION = {"protocols": ["knn", "linear"], "arms": ["federated", "raw"]}
BOTH = {"classification": {"label": "label"}, "regression": {"label": "age"}}


def study(**tasks):
    table = study_table(evaluation=EVALUATION, federation={"sites": 2, "rounds": 1})
    return parse_study({**table, "tasks": tasks or BOTH})


@pytest.fixture(scope="module")
def two_columns(archives, tmp_path_factory):
    """Two phantom hospitals with an age of some patients; a few images have an age and no class."""
    folder = tmp_path_factory.mktemp("two-columns") / "archives"
    shutil.copytree(archives, folder, ignore=shutil.ignore_patterns("site-2"))
    for path in folder.glob("*/labels.csv"):
        rows = list(csv.DictReader(path.open(newline="")))
        of_patient = {name: n for n, name in enumerate(dict.fromkeys(row["patient"] for row in rows))}
        for row in rows:
            number = of_patient[row["patient"]]
            row["age"] = "" if number % 5 == 4 else str(40 + 3 * number + 20 * int(row["label"]))
            row["label"] = "" if number == 0 else row["label"]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def site(two_columns, tmp_path_factory):
    sites = find_sites(two_columns, tmp_path_factory.mktemp("home"))
    index_sites(sites, NullProgress())
    return sites[0]


def test_one_split_serves_all_tasks_and_nobody_tested_is_trained_on(site):
    data = open_site(site, study(), anew=True)
    parts = {kind: data.of_task(kind) for kind in BOTH}
    tested = set(data.split.group[data.split.test].tolist())
    assert not tested & set(data.split.group[data.split.pretrain].tolist())
    for part in parts.values():
        assert np.array_equal(part.split.pretrain, data.split.pretrain)
        assert all(part.labels[row] is not None for row in [*part.split.train, *part.split.test])
        assert set(part.split.test.tolist()) <= set(data.split.test.tolist())
        assert set(part.split.train.tolist()) <= set(data.split.train.tolist())
        assert len(part.split.train)
        assert len(part.split.test)
    found = [set(part.split.test.tolist()) for part in parts.values()]
    assert found[0] | found[1] == set(data.split.test.tolist())
    assert found[0] != found[1]


def test_a_study_of_one_task_is_split_as_it_was_and_its_data_are_the_tasks_own(site):
    alone = open_site(site, study(classification={"label": "label"}), anew=True)
    of_task = alone.of_task("classification")
    for name in ("pretrain", "train", "test", "group", "left_out"):
        assert np.array_equal(getattr(of_task.split, name), getattr(alone.split, name))
    assert of_task.labels == alone.labels
    assert alone.more_labels == {}
    # The second task's patients without a class are a stratum of their own, and move nobody else.
    both = open_site(site, study(), anew=True).of_task("classification")
    assert np.array_equal(both.split.test, alone.split.test)


def test_each_task_is_measured_judged_and_reported(two_columns, tmp_path, capsys):
    results = simulate(study(), two_columns, tmp_path / "run", tmp_path / "home")
    rows = results["evaluation"]
    assert {(row["site"], row["task"]) for row in rows} == {
        (name, kind) for name in ("site-0", "site-1") for kind in BOTH
    }
    assert {row["metric"] for row in rows if row["task"] == "regression"} >= {"r2", "spearman", "mae"}
    assert [(one["task"], one["metric"]) for one in results["verdicts"]] == [
        ("classification", "auroc"),
        ("regression", "r2"),
    ]
    assert set(results["labels"]) == set(BOTH)
    assert {one["holds"] for one in results["labels"].values()} == {"classes", "numbers"}
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    told = capsys.readouterr().err
    assert "`age`: least, median, most" in told
    page = (tmp_path / "run" / "report.html").read_text()
    for words in (
        "Classification: Who was trained on, and who was tested",
        "Regression: What the encoder is worth at each site",
        "Each task is judged by itself",
    ):
        assert words in page
    print_table(results)
    printed = capsys.readouterr().out
    assert "classification: AUROC with 95 % intervals" in printed
    assert "regression: R² with 95 % intervals" in printed


def test_a_task_that_a_sites_labels_do_not_serve_is_left_out_alone(site, two_columns, tmp_path, caplog):
    folder = tmp_path / "archives"
    shutil.copytree(two_columns, folder)
    table = folder / "site-0" / "labels.csv"
    rows = list(csv.DictReader(table.open(newline="")))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "age": ""} for row in rows)
    results = simulate(study(), folder, tmp_path / "run", tmp_path / "home")
    assert {row["task"] for row in results["evaluation"] if row["site"] == "site-0"} == {"classification"}
    assert (
        "site-0 measured no regression: its labels do not serve that task, as its own log says"
        in results["notes"]
    )
    assert any(
        line.startswith("the task regression is not measured: site-0: 0 patients") for line in caplog.messages
    )


def test_words_in_a_column_of_numbers_are_refused_and_shown(site, two_columns):
    with pytest.raises(LabelError, match=r"`patient` holds \d+ values that are not numbers"):
        open_site(site, study(regression={"label": "patient"}), anew=True)
    with pytest.raises(LabelError, match=r"a quantity, not classes.*tasks.regression"):
        open_site(site, study(classification={"label": "age"}), anew=True)


def test_features_of_an_arm_are_computed_once_for_all_tasks(site, monkeypatch):
    from hilum.client.evaluation import protocol

    seen = []
    pixels = protocol.pixel_features
    monkeypatch.setattr(protocol, "pixel_features", lambda *words: seen.append(1) or pixels(*words))
    what = study()
    data = open_site(site, what, anew=True)
    found = evaluate_site(data, what, {}, make_fabric("cpu", "fp32", 1), NullProgress())
    assert len(seen) == 1
    assert {row.task for row in found.rows} == set(BOTH)


def test_equal_images_with_labels_of_their_own_are_no_change_of_labels():
    split = KeptSplit("", {"x": Side.TRAINED}, {"x": "b"})
    assert not split.apply(["x", "x"], ["a", "b"], np.array([0, 0]))[1]
    assert split.apply(["x", "x"], ["b", "a"], np.array([0, 0]))[1].relabelled == 2
