"""How often the verdict claims what is not so, and how often it finds what is.

    python benchmarks/verdict.py [STUDIES]

Scores of patients are drawn, not trained: a normal of the patient, which all arms share, and one of the arm; a planted
difference lowers the rivals' AUROC. Everything from the scores on is the product's own: resamples, intervals, table,
verdict. Four rivals, three sites. First the coverage of a single arm's interval.
"""

import sys
from collections import Counter
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from hilum.client.data.splits import Split
from hilum.client.evaluation.measurements import Measurements
from hilum.client.tasks.classification import Classification
from hilum.common.config import parse_study
from hilum.common.config.study import EvaluationSection
from hilum.common.config.tasks import ClassificationTask
from hilum.common.verdict import Verdict, judge

SHARED = 0.6  # of the noise's variance is the patient's and the same for all arms
AUROC = 0.8
DRAWS = 300
EVALUATION = EvaluationSection(label_fractions=(1.0,))
STUDY = parse_study(
    {
        "study": {"name": "drawn"},
        "data": {"modality": "radiograph"},
        "encoder": {"name": "resnet"},
        "method": {"name": "simclr"},
    }
)
RIVALS = {"raw": "linear", "random": "linear", "local": "linear", "scratch": "finetune"}


def separation(auroc: float) -> float:
    """Return the distance of two normals of variance 1 with that area."""
    return float(norm.ppf(auroc) * np.sqrt(2))


def task_of(truth: npt.NDArray[np.int64]) -> Classification:
    """Return a task whose test images, one a patient, are of these classes."""
    rows = np.arange(len(truth))
    split = Split(pretrain=rows[:0], train=rows[:0], test=rows, group=rows)
    return Classification([str(one) for one in truth], split, STUDY, ClassificationTask())


def draw_study(
    rng: np.random.Generator,
    *,
    patients: int,
    planted: float = 0.0,
    positives: float = 0.5,
    seed_sd: float = 0.0,
    sites: int = 3,
) -> dict[str, object]:
    """Return what `results.json` would hold of a study.

    Args:
        rng: Of the study.
        patients: Test patients a site.
        planted: How much better the federated encoder is, in AUROC.
        positives: Share of patients with the finding.
        seed_sd: Standard deviation of each arm's true AUROC between seeds of training, at each site.
        sites: How many.
    """
    evaluation, comparisons = [], []
    for number in range(sites):
        ill = max(1, round(positives * patients))
        truth = np.r_[np.ones(ill, np.int64), np.zeros(patients - ill, np.int64)]
        seed = int(rng.integers(2**31))
        measured = Measurements(f"site-{number}", task_of(truth), np.arange(patients), DRAWS, seed)
        own = rng.normal(size=patients) * np.sqrt(SHARED)
        arms = [("federated", "linear"), ("federated", "finetune"), *RIVALS.items()]
        for arm, protocol in arms:
            area = AUROC - (planted if arm != "federated" else 0.0) + rng.normal() * seed_sd
            noise = own + rng.normal(size=patients) * np.sqrt(1 - SHARED)
            score = norm.cdf(noise + separation(float(np.clip(area, 0.5, 0.99))) * (truth - 0.5))
            measured.add(protocol, 1.0, arm, np.stack([1 - score, score], 1))
        table = measured.table()
        evaluation += [asdict(row) for row in table.rows]
        comparisons += [asdict(one) for one in table.comparisons]
    return {"rounds": [], "evaluation": evaluation, "comparisons": comparisons}


def verdicts(studies: int, seed: int, runs: int = 1, **facts: float) -> list[Verdict]:
    """Judge so many studies, each of one run or of several with seeds of their own."""
    rng = np.random.default_rng(seed)
    return [
        judge([draw_study(rng, **facts) for _ in range(runs)], EVALUATION)  # type: ignore[arg-type]
        for _ in range(studies)
    ]


def claims(found: list[Verdict]) -> tuple[float, float, float]:
    """Return the shares of studies with any claim, with a rival called beaten, and of rivals called beaten."""
    findings = [Counter(one.finding for one in verdict.against) for verdict in found]
    any_claim = np.mean([one["better"] + one["worse"] > 0 for one in findings])
    beaten = np.mean([one["better"] > 0 for one in findings])
    rivals = np.mean([one["better"] / max(1, one.total()) for one in findings])
    return float(any_claim), float(beaten), float(rivals)


def coverage(trials: int, ill: int, well: int, auroc: float, seed: int) -> float:
    """Return how often a single arm's interval holds its true AUROC."""
    rng, held = np.random.default_rng(seed), 0
    truth = np.r_[np.ones(ill, np.int64), np.zeros(well, np.int64)]
    for _ in range(trials):
        measured = Measurements("a", task_of(truth), np.arange(ill + well), DRAWS, int(rng.integers(2**31)))
        score = norm.cdf(rng.normal(size=ill + well) + separation(auroc) * (truth - 0.5))
        measured.add("linear", 1.0, "federated", np.stack([1 - score, score], 1))
        row = measured.table().rows[0]
        held += row.ci_low <= auroc <= row.ci_high
    return held / trials


def main() -> None:
    """Print the tables."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print("interval of one arm: share of 95 % intervals that hold the truth, 400 trials")
    for ill, well in ((3, 3), (5, 5), (12, 12), (5, 20), (50, 50)):
        held = [coverage(400, ill, well, auroc, 1) for auroc in (0.6, 0.8, 0.95)]
        print(f"  {ill:3} ill, {well:3} well: " + ", ".join(f"{one:.3f}" for one in held))
    print(f"verdict: {studies} studies a line, 3 sites, 4 rivals")
    lines: list[tuple[str, int, dict[str, float]]] = []
    for patients in (24, 100):
        lines += [
            (f"{patients} patients, no difference", 1, {"patients": patients}),
            (f"{patients}, none, a quarter ill", 1, {"patients": patients, "positives": 0.25}),
            (f"{patients}, none, seeds differ by 0.025", 1, {"patients": patients, "seed_sd": 0.025}),
            *(
                (f"{patients}, federated {planted:+.2f}", 1, {"patients": patients, "planted": planted})
                for planted in (0.05, 0.1, 0.15)
            ),
        ]
    for words, runs, facts in lines:
        any_claim, beaten, rivals = claims(verdicts(studies, 7, runs, **facts))
        print(f"  {words:36} a claim in {any_claim:.3f}, beats one in {beaten:.3f}, of rivals {rivals:.3f}")


if __name__ == "__main__":
    main()
