"""Prediction intervals that rest on patients who were held out of a fit: split-conformal prediction.

Lei and others, Journal of the American Statistical Association 113:1094-1111, 2018; by patient: a patient's images are alike, so
each patient stands for one residual, the largest of its images'. An interval then holds all images of a new patient as often as
asked for, and more often where patients have several.
"""

from math import ceil

import numpy as np
import numpy.typing as npt

from hilum.common.seeding import derive

Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

_HELD_OUT = 0.25


def least_patients(coverage: float) -> int:
    """Return how many held-out patients an interval of that coverage needs; with fewer it would have no end."""
    count = 1
    while ceil((count + 1) * coverage) > count:
        count += 1
    return count


def held_out(patients: Rows, coverage: float, *, seed: int) -> npt.NDArray[np.bool_] | None:
    """Choose the patients that the intervals rest on: a quarter, or as many as it takes; None where that is more than half.

    Args:
        patients: (n,) the patient number of each training image.
        coverage: Of the intervals.
        seed: The study's.

    Returns:
        (n,) whether an image is held out.
    """
    known = np.unique(patients)
    count = max(ceil(_HELD_OUT * len(known)), least_patients(coverage))
    if 2 * count > len(known):
        return None
    order = sorted(known.tolist(), key=lambda number: derive(seed, "held out", number))
    return np.isin(patients, order[:count])


def half_width(residuals: Values, patients: Rows, coverage: float) -> float:
    """Return half the width of intervals with that coverage.

    Args:
        residuals: (n,) absolute errors on held-out images.
        patients: (n,) whose they are; at least `least_patients`.
        coverage: Of the intervals.
    """
    largest = sorted(float(residuals[patients == number].max()) for number in np.unique(patients))
    return largest[ceil((len(largest) + 1) * coverage) - 1]
