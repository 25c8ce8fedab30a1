"""An honest sentence about what one run, or several of one study, bear out for one task.

One comparison is primary, and the study fixes it before it runs: the mean over sites of the paired difference in the
task's primary metric between the federated encoder and each rival, on the first of `evaluation.label_fractions`, by the
linear probe (else with a head on the frozen encoder, else fine-tuned, else by adapters, else by neighbours; against `scratch` both are fine-tuned). What is said of several rivals
is corrected for their number by Holm (Scandinavian Journal of Statistics 6:65-70, 1979), so that a study in which nothing
differs gets a headline in at most one of twenty runs (`benchmarks/verdict.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import mean, variance
from typing import Any, Literal

from scipy.special import stdtr, stdtrit

from hilum.common.config.study import EvaluationSection
from hilum.common.config.tasks import ClassificationTask, TaskSection, TasksSection
from hilum.common.results_table import combinations

ALPHA = 0.05
SEED_SD = 0.025
"""How much the AUROC of equally good encoders differs at a site between seeds of training: six random encoders had a
standard deviation of 0.02 to 0.03 on chest radiographs."""

RIVALS = {
    "raw": "regression on raw pixels",
    "random": "a random encoder",
    "scratch": "supervised training from scratch (both fine-tuned)",
    "local": "each site's own pre-training",
}
"""Arms that the verdict is about, in the order of its words; `centralised` is a ceiling and not a rival."""

_PREFERRED = ("linear", "frozen", "finetune", "lora", "knn")
_HOW = {
    "linear": "with a linear probe",
    "frozen": "with a head trained on the frozen encoder",
    "finetune": "fine-tuned",
    "lora": "fine-tuned by low-rank adapters",
    "knn": "by nearest neighbours",
}
_Z = 1.959964
_MIN_RUNS = 2

Finding = Literal["better", "worse", "no difference found"]


@dataclass(frozen=True)
class Against:
    """The federated encoder against one rival.

    Attributes:
        difference: Mean over sites (and runs) of the paired differences in the primary metric.
        ci_low: Of its 95 % interval, not corrected for the number of rivals.
        ci_high: The other end.
        p_holm: Corrected for the number of rivals.
        finding: At 5 % of `p_holm`.
        sites: How many sites could compare the two.
    """

    arm: str
    words: str
    difference: float
    ci_low: float
    ci_high: float
    p_holm: float
    finding: Finding
    sites: int


@dataclass(frozen=True)
class Verdict:
    """A headline, what it rests on, and the comparisons behind it.

    Attributes:
        task: Which task it is of; empty for an encoder that was pre-trained alone.
        protocol: Of the primary comparison, `scratch` aside.
        runs: How many runs it is over.
        not_compared: Rivals that the study asked for and no site could compare.
    """

    task: str
    headline: str
    detail: str
    protocol: str
    label_fraction: float
    metric: str
    runs: int
    against: tuple[Against, ...]
    not_compared: tuple[str, ...]


def judge_tasks(
    runs: Sequence[dict[str, Any]], evaluation: EvaluationSection, tasks: TasksSection
) -> list[Verdict]:
    """Judge each of a study's tasks by itself, in their order; one verdict says that a study without any measured nothing."""
    if not tasks.given:
        bare = judge([{**run, "evaluation": [], "comparisons": []} for run in runs], evaluation)
        return [replace(bare, task="")]
    return [judge(runs, evaluation, type(task)) for task in tasks.given]


def judge(
    runs: Sequence[dict[str, Any]],
    evaluation: EvaluationSection,
    task: type[TaskSection] = ClassificationTask,
) -> Verdict:
    """Judge runs of one study that differ in their seed alone, by what `results.json` holds of each.

    Args:
        runs: One or more, each with `rounds`, `evaluation` and `comparisons`; lines of other tasks are passed over.
        evaluation: The study's.
        task: One of the study's.
    """
    runs = [_of_task(run, task.kind) for run in runs]
    metric = task.primary()
    share = evaluation.label_fractions[0]
    protocol = next(one for one in _PREFERRED if one in evaluation.protocols and one in task.protocols)
    measured = {(how, arm) for how, _share, arm in combinations(evaluation, ("federated", "local"), task)}
    how_of = {arm: "finetune" if arm == "scratch" else protocol for arm in RIVALS}
    asked = [arm for arm in RIVALS if {(how_of[arm], arm), (how_of[arm], "federated")} <= measured]
    estimates = {}
    for arm in asked:
        how = how_of[arm]
        by_run = [_of_run(run, arm, (how, share, metric)) for run in runs]
        if all(by_run):
            estimates[arm] = _Estimate.of(by_run)
    against = _corrected(estimates)
    missing = tuple(arm for arm in asked if arm not in estimates)
    untrained = any(run["rounds"] and not any(one["update_norm"] for one in run["rounds"]) for run in runs)
    measured_any = any(run["evaluation"] for run in runs)
    headline = _headline(against, missing, untrained=untrained, measured=measured_any)
    how_measured = f"{_HOW[protocol].capitalize()} on {share:.0%} of the labels: the mean difference in {task.metrics[metric].words}"
    detail = _detail(against, missing, how_measured, len(runs), _patients(runs, share, metric))
    return Verdict(task.kind, headline, detail, protocol, share, metric, len(runs), against, missing)


def _of_task(run: dict[str, Any], kind: str) -> dict[str, Any]:
    lines = {
        key: [line for line in run[key] if line["task"] == kind] for key in ("evaluation", "comparisons")
    }
    return {**run, **lines}


@dataclass(frozen=True)
class _Difference:
    """A paired difference at one site."""

    value: float
    error: float
    patients: int


def _of_run(run: dict[str, Any], arm: str, place: tuple[str, float, str]) -> list[_Difference]:
    """Return each site's difference; the standard error is that of a normal with the interval's width.

    Args:
        run: One run's results.
        arm: The rival.
        place: Protocol, share of the labels, metric.
    """
    patients = {
        row["site"]: row["n_patients"]
        for row in run["evaluation"]
        if (row["protocol"], row["label_fraction"], row["metric"], row["arm"]) == (*place, "federated")
    }
    return [
        _Difference(one["difference"], (one["ci_high"] - one["ci_low"]) / (2 * _Z), patients[one["site"]])
        for one in run["comparisons"]
        if (one["protocol"], one["label_fraction"], one["metric"]) == place and one["arm"] == arm
    ]


@dataclass(frozen=True)
class _Estimate:
    """A mean difference, its standard error, the degrees of freedom, and over how many sites."""

    value: float
    error: float
    freedom: float
    sites: int

    @classmethod
    def of(cls, runs: Sequence[Sequence[_Difference]]) -> "_Estimate":
        """Put sites and runs together.

        Sampling of patients: sites are independent; runs test the same patients, so more of them do not lessen it.
        Training: from the spread between runs where there are several, else by `SEED_SD` for each of the two arms.
        """
        means = [mean(one.value for one in run) for run in runs]
        sampling = mean(sum(one.error**2 for one in run) / len(run) ** 2 for run in runs)
        sites = min(len(run) for run in runs)
        training = variance(means) / len(means) if len(means) >= _MIN_RUNS else 2 * SEED_SD**2 / sites
        freedom = float(max(1, min(sum(one.patients - 2 for one in run) for run in runs)))
        if len(means) >= _MIN_RUNS and training > 0:  # Satterthwaite
            total = sampling + training
            freedom = total**2 / (sampling**2 / freedom + training**2 / (len(means) - 1))
        return cls(mean(means), sqrt(sampling + training), freedom, sites)

    @property
    def p(self) -> float:
        """Two-sided, by Student's t."""
        if self.error == 0:
            return 1.0
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.error))

    @property
    def half(self) -> float:
        """Half the width of the 95 % interval."""
        return float(stdtrit(self.freedom, 0.975)) * self.error


def _corrected(estimates: dict[str, _Estimate]) -> tuple[Against, ...]:
    adjusted, highest = {}, 0.0
    for rank, arm in enumerate(sorted(estimates, key=lambda arm: estimates[arm].p)):
        highest = max(highest, min(1.0, (len(estimates) - rank) * estimates[arm].p))
        adjusted[arm] = highest
    return tuple(
        Against(
            arm,
            RIVALS[arm],
            round(one.value, 4),
            round(one.value - one.half, 4),
            round(one.value + one.half, 4),
            round(adjusted[arm], 6),
            _finding(one.value, adjusted[arm]),
            one.sites,
        )
        for arm, one in estimates.items()
    )


def _finding(difference: float, p: float) -> Finding:
    if p >= ALPHA:
        return "no difference found"
    return "better" if difference > 0 else "worse"


def _headline(against: Sequence[Against], missing: Sequence[str], *, untrained: bool, measured: bool) -> str:
    if untrained:
        return "The encoder was not trained: no round moved a weight, so nothing can be said of its worth."
    if not measured:
        return "Nothing was measured, so nothing can be said of the encoder's worth."
    if not against:
        why = (
            "too few test patients, or predictions that are all alike"
            if missing
            else "the study asks for none"
        )
        return (
            f"The federated encoder was compared with no rival ({why}), so nothing can be said of its worth."
        )
    found = {finding: [one for one in against if one.finding == finding] for finding in ("better", "worse")}
    rest = [one for one in against if one.finding == "no difference found"]
    parts = [
        f"{words} {_list(found[finding])}"
        for finding, words in (("better", "beats"), ("worse", "is worse than"))
        if found[finding]
    ]
    if not parts:
        return f"No difference was found between the federated encoder and {_list(rest, 'or')}."
    told = f"The federated encoder {' but '.join(parts)}"
    return f"{told}; no difference was found from {_list(rest, 'or')}." if rest else f"{told}."


def _detail(
    against: Sequence[Against],
    missing: Sequence[str],
    how_measured: str,
    runs: int,
    patients: Sequence[int],
) -> str:
    parts = []
    if against:
        count = len(against)
        sites = max(one.sites for one in against)
        parts.append(
            f"{how_measured} over {sites} {'site' if sites == 1 else 'sites'} with {min(patients)} test patients or more each, "
            f"{'corrected (Holm) for ' if count > 1 else ''}{count} {'rivals' if count > 1 else 'rival'}; "
            "this comparison alone makes the headline."
        )
        if runs == 1:
            parts.append(
                "It is of this one run: what another seed of training would change is allowed for with a standard "
                f"deviation of {SEED_SD} for each arm and site, not measured."
            )
        else:
            parts.append(f"Over {runs} runs with seeds of their own; their spread is in the interval.")
        parts.append(
            "A difference that was not found may still be there: so few patients can't show a small one."
        )
    if missing and against:
        parts.append(
            f"Not compared: {_words(missing)} (too few test patients, or predictions that are all alike)."
        )
    return " ".join(parts)


def _patients(runs: Sequence[dict[str, Any]], share: float, metric: str) -> list[int]:
    return [
        row["n_patients"]
        for run in runs
        for row in run["evaluation"]
        if (row["label_fraction"], row["metric"], row["arm"]) == (share, metric, "federated")
    ]


def _words(arms: Sequence[str]) -> str:
    return ", ".join(RIVALS[arm] for arm in arms)


def _list(arms: Sequence[Against], joint: str = "and") -> str:
    words = [one.words for one in arms]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"
