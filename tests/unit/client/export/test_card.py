"""The card of an export tells what may be told, and no more."""

import json

import pytest

from exported_encoders import make_encoder
from hilum.client.export.formats import export
from hilum.common.errors import DataError


def row(arm, value, site="a"):
    return {
        "site": site, "task": "classification", "protocol": "linear", "label_fraction": 0.1, "arm": arm, "metric": "auroc",
        "value": value, "ci_low": value, "ci_high": value, "n_patients": 13, "note": "",
    }  # fmt: skip


def results(**changes):
    return {
        "study": "test", "seed": 7,
        "sites": [{"name": "Saint Elsewhere", "examples": 96}, {"name": "b", "examples": 11}, {"name": "c", "examples": None}],
        "privacy": {"Saint Elsewhere": {"unit": "patient", "mechanism": "none", "epsilon": None, "delta": None}},
        "evaluation": [row("federated", 0.9), row("federated", 0.7, "b"), row("raw", 0.6)],
        "verdict": {"headline": "No difference was found.", "detail": "Over one run."},
        **changes,
    }  # fmt: skip


def card_of(tmp_path, found=None, **options):
    study = make_encoder("resnet 2D", tmp_path / "run")
    if found is not None:
        found = {**found, "study": found["study"] or study.study.name, "seed": study.study.seed}
        (tmp_path / "run" / "results.json").write_text(json.dumps(found))
    export(tmp_path / "run", tmp_path / "out", ["safetensors"], **options)
    return (tmp_path / "out" / "MODEL_CARD.md").read_text()


def test_the_card_has_data_privacy_results_beside_the_baselines_limits_and_licence(tmp_path):
    card = card_of(tmp_path, results(study=None), licence="CC-BY-NC-4.0")
    assert "At least 107 training images of 2 sites" in card
    assert "| classification | linear | 10% | auroc | 0.800 | 0.600 |" in card
    assert "No difference was found. Over one run." in card
    assert "Differential privacy: none. No noise was added" in card
    assert "CC-BY-NC-4.0." in card
    assert "SimCLR" in card or "simclr" in card
    assert "Saint Elsewhere" not in card, "a card may be published; sites are counted, not named"


def test_each_tasks_verdict_stands_on_the_card(tmp_path):
    verdicts = [{"headline": "Better.", "detail": "By much."}, {"headline": "Worse.", "detail": "By little."}]
    card = card_of(tmp_path, results(study=None, verdict=None, verdicts=verdicts))
    assert "Better. By much.\n\nWorse. By little." in card


def test_results_of_another_study_are_not_taken_for_the_encoders(tmp_path):
    card = card_of(tmp_path, results(study="another"))
    assert "Nothing was measured, or the run's `results.json` is not beside it." in card
    assert "not stated; the sites whose images it was trained on decide." in card


def test_privacy_that_was_spent_is_told_by_the_site_that_spent_most(tmp_path):
    spent = {
        "a": {"unit": "patient", "epsilon": 2.0, "delta": 1e-5},
        "b": {"unit": "patient", "epsilon": 3.5, "delta": 1e-6},
    }
    card = card_of(tmp_path, results(study=None, privacy=spent))
    assert "at most epsilon 3.5 at delta 1e-05 at any site (patient)" in card


def described(tmp_path, **changes):
    path = tmp_path / "described.json"
    of_family = {"patients": 44, "studies": 44, "images": None, "volumes": 0, "tables": {}}
    path.write_text(json.dumps({"threshold": 11, "families": {"radiograph": of_family}, **changes}))
    return path


def test_what_a_site_described_stands_on_the_card(tmp_path):
    card = card_of(tmp_path, descriptions=[described(tmp_path)])
    assert "| radiograph | 44 | hidden | 0 |" in card


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": 5}, "holds counts that may not leave a site"),
        ({"families": {"ct": {"patients": 13}}}, "holds counts that may not leave a site"),
        ({"families": None}, "is not a description of a site"),
        ({"threshold": 0}, "is not a description of a site"),
    ],
)
def test_counts_that_may_not_leave_are_refused_and_nothing_is_written(tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        card_of(tmp_path, descriptions=[described(tmp_path, **changes)])
    assert not (tmp_path / "out").exists()
