"""Patient-level bootstrap: patients are drawn, never images, and the same draws serve every arm."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hilum.common.seeding import generator

_LEVELS = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % percentile interval (Efron and Tibshirani 1993, chapter 13)."""

    value: float
    low: float
    high: float


def patient_draws(group: npt.NDArray[np.int64], draws: int, seed: int) -> npt.NDArray[np.float64]:
    """Weights (1 + draws, N): a first row of ones for the value itself, then one resample of patients a row.

    Args:
        group: (N,) the patient number of each image.
        draws: How many resamples.
        seed: The study's.
    """
    patients, place = np.unique(group, return_inverse=True)
    rng = generator(seed, "bootstrap")
    counts = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=draws)
    return np.concatenate([np.ones((1, len(group))), counts[:, place].astype(np.float64)])


def interval(draws: npt.NDArray[np.float64]) -> Interval:
    """The interval of a metric from its values over `patient_draws`; draws that lack a class are left out."""
    low, high = np.nanpercentile(draws[1:], _LEVELS)
    return Interval(float(draws[0]), float(low), float(high))
