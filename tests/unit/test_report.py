import pytest

from hilum.simulations.verdict import judge


def comparison(arm, low, high, site="site-0", protocol="linear", share=1.0):
    return {
        "site": site, "task": "classification", "protocol": protocol, "label_fraction": share, "arm": arm,
        "metric": "auroc", "difference": (low + high) / 2, "ci_low": low, "ci_high": high,
    }  # fmt: skip


def results(*comparisons):
    rows = [
        {
            "protocol": c["protocol"],
            "label_fraction": c["label_fraction"],
            "metric": "auroc",
            "n_patients": 20 + n,
        }
        for n, c in enumerate(comparisons)
    ]
    return {"comparisons": list(comparisons), "evaluation": rows}


@pytest.mark.parametrize(
    ("comparisons", "headline"),
    [
        (
            [comparison("raw", 0.1, 0.3), comparison("random", 0.01, 0.2)],
            "beats a random encoder and regression on raw pixels, each significantly",
        ),
        (
            [comparison("raw", -0.1, 0.3), comparison("random", 0.01, 0.2)],
            "beats a random encoder significantly somewhere, but not regression on raw pixels",
        ),
        (
            [comparison("raw", -0.1, 0.3)],
            "At no site does the federated encoder significantly beat regression on raw pixels",
        ),
        (
            [comparison("raw", 0.1, 0.3), comparison("raw", -0.3, -0.1, "site-1")],
            "significantly worse than regression on raw pixels at 1 of 2 sites",
        ),
        ([comparison("centralised", 0.1, 0.2)], "compared with no floor"),
        ([], "No encoder was evaluated"),
    ],
)
def test_the_headline_claims_what_the_intervals_bear_out(comparisons, headline):
    assert headline in judge(results(*comparisons)).headline


def test_the_verdict_rests_on_the_largest_share_of_labels_and_on_scratch_fine_tuned():
    verdict = judge(
        results(
            comparison("raw", 0.1, 0.2, share=0.1),
            comparison("raw", -0.2, 0.1),
            comparison("scratch", 0.1, 0.2, protocol="finetune"),
            comparison("raw", 0.3, 0.4, protocol="knn"),
        )
    )
    found = {one.arm: one for one in verdict.against}
    assert found["raw"].difference == pytest.approx(-0.05)
    assert found["scratch"].better == 1
    assert "20 to" not in verdict.detail
    assert "100%" in verdict.detail
