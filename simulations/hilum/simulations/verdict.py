"""An honest sentence about what a run shows, made from the paired comparisons alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

METRIC = "auroc"
_PREFERRED = ("linear", "finetune", "knn")
_ARM_WORDS = {
    "local": "each site's own pre-training",
    "centralised": "pre-training on all images in one place",
    "scratch": "supervised training from scratch",
    "random": "a random encoder",
    "raw": "regression on raw pixels",
}
_MAX_SPANS = 12
_FLOORS = ("raw", "random", "scratch", "local")


@dataclass(frozen=True)
class Against:
    """The federated encoder against one arm: the mean difference, and at how many sites it is significant."""

    arm: str
    words: str
    difference: float
    better: int
    worse: int
    sites: int


@dataclass(frozen=True)
class Verdict:
    """A headline, what it rests on, the comparisons behind it, and how many sites were in each round."""

    headline: str
    detail: str
    against: tuple[Against, ...]
    participation: str


def judge(results: dict[str, Any]) -> Verdict:
    """Say what the run's comparisons bear out, at the largest share of the labels."""
    who = participation(results["rounds"])
    chosen = _choose(results["comparisons"])
    if not chosen:
        return Verdict("No encoder was evaluated.", "The run holds no comparison with another arm.", (), who)
    protocol, share = chosen[0]["protocol"], chosen[0]["label_fraction"]
    against = tuple(_against(arm, [c for c in chosen if c["arm"] == arm]) for arm in _in_order(chosen))
    floors = [one for one in against if one.arm in _FLOORS]
    clear = [one for one in floors if one.better > 0 and one.worse == 0]
    lost = [one for one in floors if one.worse > 0]
    patients = [
        row["n_patients"]
        for row in results["evaluation"]
        if (row["protocol"], row["label_fraction"], row["metric"]) == (protocol, share, METRIC)
    ]
    how = {"linear": "With a linear probe", "knn": "By nearest neighbours", "finetune": "Fine-tuned"}[
        protocol
    ]
    few, many = min(patients, default=0), max(patients, default=0)
    crowd = f"{few}" if few == many else f"{few} to {many}"
    detail = (
        f"{how} on {share:.0%} of the labels, over {against[0].sites} sites with {crowd} test patients each. "
        "“Significant” means that the 95 % interval of the paired difference, over patients, excludes zero. "
        f"{_looks(floors)} With so few patients and one seed, a difference that is not significant may be chance."
    )
    return Verdict(_headline(floors, clear, lost), detail, against, who)


def participation(rounds: Sequence[dict[str, Any]]) -> str:
    """Say how many of the sites contributed to each round, and why others did not: `Round 4: 2 of 3 sites contributed (b: lost).`."""
    spans: list[tuple[int, int, str]] = []
    for record in rounds:
        missing = ", ".join(f"{name}: {why.split(':', 1)[0]}" for name, why in record["failures"].items())
        words = f"{record['contributed']} of {record['expected']} sites contributed{f' ({missing})' if missing else ''}"
        number = record["round"]
        if spans and spans[-1][2] == words:
            spans[-1] = (spans[-1][0], number, words)
        else:
            spans.append((number, number, words))
    if len(spans) > _MAX_SPANS:
        counts, expected = [record["contributed"] for record in rounds], rounds[-1]["expected"]
        return (
            f"Rounds 1 to {len(rounds)}: {min(counts)} to {max(counts)} of {expected} sites contributed, "
            f"all of them in {sum(count == expected for count in counts)} rounds."
        )
    shown = [
        f"{f'rounds {first} to {last}' if first < last else f'round {first}'}: {words}"
        for first, last, words in spans
    ]
    text = "; ".join(shown)
    return f"{text[:1].upper()}{text[1:]}." if text else "There was no round."


def _headline(floors: Sequence[Against], clear: Sequence[Against], lost: Sequence[Against]) -> str:
    if not floors:
        return "The federated encoder was compared with no floor, so nothing can be said of its worth."
    if lost:
        places = f"at {lost[0].worse} of {lost[0].sites} sites" if len(lost) == 1 else "at some site each"
        return f"The federated encoder is significantly worse than {_list(lost)} {places}."
    if len(clear) == len(floors):
        return f"The federated encoder beats {_list(clear)}, each significantly at one site or more."
    if clear:
        rest = [one for one in floors if one not in clear]
        return f"The federated encoder beats {_list(clear)} significantly somewhere, but not {_list(rest)}."
    return f"At no site does the federated encoder significantly beat {_list(floors, 'or')}."


def _looks(floors: Sequence[Against]) -> str:
    """How many comparisons were made: of twenty, one is expected outside its interval by chance."""
    looks = sum(one.sites for one in floors)
    return f"{looks} such comparisons with floors were made, and nothing is corrected for their number."


def _list(arms: Sequence[Against], joint: str = "and") -> str:
    words = [one.words for one in arms]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"


def _choose(comparisons: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The comparisons of one protocol at the largest label fraction; `scratch` is known fine-tuned only."""
    measured = [c for c in comparisons if c["metric"] == METRIC]
    if not measured:
        return []
    share = max(c["label_fraction"] for c in measured)
    largest = [c for c in measured if c["label_fraction"] == share]
    protocol = next(p for p in _PREFERRED if any(c["protocol"] == p for c in largest))
    scratch = [c for c in largest if c["arm"] == "scratch" and protocol != "finetune"]
    return [c for c in largest if c["protocol"] == protocol] + scratch


def _in_order(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    return [arm for arm in _ARM_WORDS if any(c["arm"] == arm for c in comparisons)]


def _against(arm: str, comparisons: Sequence[dict[str, Any]]) -> Against:
    words = _ARM_WORDS[arm] + (" (both fine-tuned)" if arm == "scratch" else "")
    return Against(
        arm=arm,
        words=words,
        difference=mean(c["difference"] for c in comparisons),
        better=sum(c["ci_low"] > 0 for c in comparisons),
        worse=sum(c["ci_high"] < 0 for c in comparisons),
        sites=len(comparisons),
    )
