"""The headline claims what the primary comparison bears out, corrected for the number of rivals."""

import sys

import pytest

from hilum.common.config.study import EvaluationSection
from hilum.common.verdict import judge
from places import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import verdict as null_studies

ALL = EvaluationSection(label_fractions=(0.1, 1.0))


def run(differences, *, share=0.1, width=0.05, sites=3, patients=22, update_norm=1.0):
    """Results in which the federated encoder is better than each rival by so much at every site."""
    evaluation, comparisons = [], []
    for site in range(sites):
        name = {"site": f"site-{site}", "task": "classification", "label_fraction": share, "metric": "auroc"}
        evaluation += [
            {**name, "protocol": protocol, "arm": "federated", "n_patients": patients}
            for protocol in ("knn", "linear", "finetune")
        ]
        for arm, value in differences.items():
            for protocol in ("finetune",) if arm == "scratch" else ("linear", "knn"):
                signed = value if protocol != "knn" else -value
                comparisons.append(
                    {
                        **name, "protocol": protocol, "arm": arm, "difference": signed,
                        "ci_low": signed - width, "ci_high": signed + width,
                    }
                )  # fmt: skip
    rounds = [{"round": 1, "update_norm": update_norm}]
    return {"rounds": rounds, "evaluation": evaluation, "comparisons": comparisons}


RIVALS = ("raw", "random", "scratch", "local")


@pytest.mark.parametrize(
    ("differences", "headline"),
    [
        (
            dict.fromkeys(RIVALS, 0.2),
            (
                "The federated encoder beats regression on raw pixels, a random encoder, supervised training from scratch "
                "(both fine-tuned) and each site's own pre-training."
            ),
        ),
        (
            {"raw": 0.2, "random": 0.0},
            "The federated encoder beats regression on raw pixels; no difference was found from a random encoder.",
        ),
        ({"raw": 0.0}, "No difference was found between the federated encoder and regression on raw pixels."),
        ({"raw": -0.2}, "The federated encoder is worse than regression on raw pixels."),
        (
            {"raw": -0.2, "random": 0.2, "local": 0.01},
            (
                "The federated encoder beats a random encoder but is worse than regression on raw pixels; no difference was "
                "found from each site's own pre-training."
            ),
        ),
        (
            {},
            (
                "The federated encoder was compared with no rival (too few test patients, or predictions that are all alike), so "
                "nothing can be said of its worth."
            ),
        ),
    ],
)
def test_the_headline_names_who_is_beaten_by_whom(differences, headline):
    verdict = judge([run(differences)], ALL)
    assert verdict.headline == headline
    assert set(verdict.not_compared) == set(RIVALS) - set(differences)


def test_the_first_share_of_labels_is_the_primary_one():
    both = run({"raw": 0.2})
    other = run({"raw": -0.2}, share=1.0)
    merged = {**both, "evaluation": both["evaluation"] + other["evaluation"]}
    merged["comparisons"] = other["comparisons"] + both["comparisons"]
    assert "beats" in judge([merged], ALL).headline
    assert "worse" in judge([merged], EvaluationSection(label_fractions=(1.0, 0.1))).headline


def test_where_nothing_was_measured_no_rival_is_blamed():
    verdict = judge([run({}) | {"evaluation": [], "comparisons": []}], ALL)
    assert verdict.headline == "Nothing was measured, so nothing can be said of the encoder's worth."


def test_a_ceiling_is_no_rival():
    verdict = judge([run({"centralised": -0.3})], ALL)
    assert "compared with no rival" in verdict.headline


def test_an_untrained_encoder_gets_no_headline_of_its_worth():
    verdict = judge([run({"raw": 0.3}, update_norm=0.0)], ALL)
    assert verdict.headline.startswith("The encoder was not trained")


def test_more_rivals_take_more_evidence():
    """A difference whose own p is about 0.02 is claimed alone and not among four."""
    alone = judge([run({"raw": 0.06})], ALL).against[0]
    assert 0.01 < alone.p_holm < 0.03
    assert alone.finding == "better"
    among = judge([run({"raw": 0.06, "random": 0.0, "scratch": 0.0, "local": 0.0})], ALL).against[0]
    assert among.p_holm == pytest.approx(4 * alone.p_holm, rel=1e-3)
    assert among.finding == "no difference found"


def test_holms_values_never_fall():
    verdict = judge([run({"raw": 0.11, "random": 0.1, "scratch": 0.02, "local": 0.0})], ALL)
    by_size = sorted(verdict.against, key=lambda one: -one.difference)
    assert [one.p_holm for one in by_size] == sorted(one.p_holm for one in by_size)


def test_one_run_allows_for_another_seed_and_several_measure_it():
    sure = run({"raw": 0.06}, width=0.001, patients=2000)
    assert judge([sure], ALL).against[0].finding == "better"
    assert (
        judge([run({"raw": 0.03}, width=0.001, patients=2000)], ALL).against[0].finding
        == "no difference found"
    )
    alike = [run({"raw": value}, width=0.001, patients=2000) for value in (0.03, 0.031, 0.029)]
    assert judge(alike, ALL).against[0].finding == "better"
    apart = [run({"raw": value}, width=0.001, patients=2000) for value in (0.13, -0.05, 0.01)]
    found = judge(apart, ALL)
    assert found.against[0].finding == "no difference found"
    assert "Over 3 runs" in found.detail


def test_more_runs_do_not_make_patients():
    """The same patients tested in ten runs say no more of other patients than in one."""
    wide = run({"raw": 0.1}, width=0.3)
    assert judge([wide] * 10, ALL).against[0].ci_low < 0


def test_a_study_without_a_rival_says_so():
    only = EvaluationSection(arms=("federated", "centralised"))
    assert "the study asks for none" in judge([run({})], only).headline


def test_a_null_study_rarely_gets_a_headline_and_a_planted_difference_does():
    null = null_studies.claims(null_studies.verdicts(60, 1, patients=24))
    assert null[0] <= 0.1
    planted = null_studies.claims(null_studies.verdicts(20, 1, patients=100, planted=0.15))
    assert planted[1] >= 0.9
