"""Whether an encoder still learns: the numbers that every site tells of every round, and what they warn of.

The list is closed: sites send these and no others, the server refuses what lies beyond their bounds, and `rounds.jsonl`, TensorBoard
and report show them by these names.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HEALTH_IMAGES = 32
"""From so many training images, or as many as the threshold of patients where that is more, come the numbers of an encoder."""
_MOST_IMAGES = 1000  # the highest threshold


@dataclass(frozen=True)
class HealthNumber:
    """One number.

    Attributes:
        low: Its least value.
        high: Its greatest.
        words: What it is.
    """

    low: float
    high: float
    words: str


_LARGE = 1e9
HEALTH: dict[str, HealthNumber] = {
    "feature_deviation": HealthNumber(
        0,
        10,
        "standard deviation of features of length 1, times the root of their width: 0 where all are one",
    ),
    "effective_rank": HealthNumber(
        1,
        _MOST_IMAGES,
        "exp of the entropy of the singular values of centred features (arXiv 2210.02885)",
    ),
    "residual_norm": HealthNumber(0, _LARGE, "root mean square of what the last norm receives"),
    "alignment": HealthNumber(
        0,
        4,
        "mean squared distance between features of length 1 of an image and of a crop of it (arXiv 2005.10242)",
    ),
    "uniformity": HealthNumber(
        -8,
        0,
        "logarithm of the mean of exp(-2 d^2) over distances d between images' features of length 1 (arXiv 2005.10242)",
    ),
    "start_deviation": HealthNumber(0, 10, "`feature_deviation` of the encoder that the study starts from"),
    "start_rank": HealthNumber(1, _MOST_IMAGES, "`effective_rank` of the same"),
    "start_norm": HealthNumber(0, _LARGE, "`residual_norm` of the same"),
    "gradient_norm": HealthNumber(0, _LARGE, "mean over the round's steps, before it was clipped"),
    "skipped_share": HealthNumber(
        0, 1, "share of the steps that moved nothing, since their gradient was not finite"
    ),
}
"""By name, in the order in which they are shown."""

_DRIFT = 10.0
_COLLAPSED_DEVIATION, _COLLAPSED_RANK = 0.1, 0.25
_MANY_SKIPPED = 0.05

ON_COLLAPSE = "lower training.base_learning_rate or take another method, and begin a new run"

WarningKind = Literal["collapse", "drift", "skipped"]


@dataclass(frozen=True)
class HealthWarning:
    """What is the matter with a round's training at a site, and what to try."""

    kind: WarningKind
    words: str


def health_warnings(numbers: Mapping[str, float]) -> list[HealthWarning]:
    """Return what a round's numbers warn of; nothing for a round of before there were any.

    Drift: what the last norm receives has grown tenfold since before training, so that most of a feature is one direction
    common to all images. Collapse: features differ by less than a tenth, or have less than a quarter of the effective
    rank, of what the encoder gave that the study started from.
    """
    if not numbers.keys() >= HEALTH.keys():
        return []
    found = []
    deviation = numbers["feature_deviation"] / max(numbers["start_deviation"], 1e-9)
    rank = numbers["effective_rank"] / numbers["start_rank"]
    if deviation < _COLLAPSED_DEVIATION or rank < _COLLAPSED_RANK:
        found.append(
            HealthWarning(
                "collapse",
                f"the features of different images have become nearly one (spread {deviation:.2g} times and effective rank "
                f"{rank:.2g} times those of the encoder that the study started from); lower training.base_learning_rate, or take a larger batch or another "
                "method",
            )
        )
    growth = numbers["residual_norm"] / max(numbers["start_norm"], 1e-9)
    if growth > _DRIFT:
        found.append(
            HealthWarning(
                "drift",
                f"what the encoder's last norm receives has grown {growth:.3g} times, so that longer training may make it "
                "worse; lower training.base_learning_rate",
            )
        )
    if numbers["skipped_share"] > _MANY_SKIPPED:
        found.append(
            HealthWarning(
                "skipped",
                f"{numbers['skipped_share']:.0%} of the steps were skipped, since their gradient was not finite; lower "
                'training.base_learning_rate, or write training.precision = "fp32"',
            )
        )
    return found


def has_collapsed(numbers: Mapping[str, float]) -> bool:
    """Tell whether a round's numbers are those of a collapse."""
    return any(warning.kind == "collapse" for warning in health_warnings(numbers))


def bounded(name: str, value: float) -> bool:
    """Tell whether a number is finite and within its bounds."""
    return math.isfinite(value) and HEALTH[name].low <= value <= HEALTH[name].high
