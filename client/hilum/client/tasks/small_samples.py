"""Intervals that hold for few patients, where a bootstrap is too narrow: of a perfect score it has no width at all.

They rest on the numbers of patients alone, so a site with several images a patient is not taken for a larger one.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

from hilum.client.tasks.base import Interval

MIN_CLASS_PATIENTS = 5
"""Test patients of each class that a comparison between arms takes: half a patient must not be more than a tenth of a
class."""

_Z = float(ndtri(0.975))
_BESIDE = 1e-9  # 0 and 1 solve the equation of a score of 0 or 1 too, and are not meant


def patients_by_class(
    group: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], classes: int
) -> tuple[int, ...]:
    """Return how many patients have an image of each class; (N,) numbers of patients and classes."""
    return tuple(len(np.unique(group[truth == k])) for k in range(classes))


def widened(metric: str, known: Interval, patients: Sequence[int]) -> Interval:
    """Return the interval of a metric, as wide as numbers of patients alone have it, or wider.

    Args:
        metric: Of `auroc` and `balanced_accuracy` there is a formula; others are a mean of errors from 0 to 1.
        known: From the bootstrap.
        patients: By class, those that are tested.
    """
    low, high = _BY_METRIC.get(metric, _half_a_patient)(known.value, patients)
    return replace(known, low=min(known.low, low), high=max(known.high, high))


def widened_mean(known: Interval, patients: int, low: float, high: float) -> Interval:
    """Return the bootstrap's interval of a mean over patients, as wide as Student's t has it.

    A percentile interval of n values has the width of a normal with their standard deviation over n, not n - 1.

    Args:
        known: From the bootstrap.
        patients: n; of one alone nothing is known.
        low: The least value.
        high: The largest.
    """
    if patients < 2:  # noqa: PLR2004 - one value has no spread
        return replace(known, low=low, high=high)
    wider = float(stdtrit(patients - 1, 0.975)) / _Z * sqrt(patients / (patients - 1))
    return replace(
        known,
        low=max(low, known.value - wider * max(0.0, known.value - known.low)),
        high=min(high, known.value + wider * max(0.0, known.high - known.value)),
    )


def widened_difference(known: Interval, patients: Sequence[int]) -> Interval:
    """Return the interval of a paired difference, on each side half a patient of the smallest class or more.

    Two perfect scores differ by 0 in every resample; that they would with other patients too is not known.
    """
    half = 0.5 / min(patients)
    return replace(
        known,
        low=max(-1.0, min(known.low, known.value - half)),
        high=min(1.0, max(known.high, known.value + half)),
    )


def _auroc(value: float, patients: Sequence[int]) -> tuple[float, float]:
    """Newcombe's score interval (Statistics in Medicine 25:559-573, 2006, method 5) on Hanley and McNeil's variance.

    For more than two classes, the mean over one-against-rest.
    """
    total = sum(patients)
    pairs = [tuple(patients)] if len(patients) == 2 else [(n, total - n) for n in patients]  # noqa: PLR2004 - two classes
    bounds = [_newcombe(value, one, rest) for one, rest in pairs]
    return float(np.mean([low for low, _ in bounds])), float(np.mean([high for _, high in bounds]))


def _newcombe(value: float, one: int, rest: int) -> tuple[float, float]:
    half = (one + rest) / 2 - 1

    def excess(area: float) -> float:
        shape = 1 + half * ((1 - area) / (2 - area) + area / (1 + area))
        return abs(value - area) - _Z * sqrt(area * (1 - area) * shape / (one * rest))

    low = 0.0 if value <= _BESIDE else brentq(excess, 0.0, value - _BESIDE)
    high = 1.0 if value >= 1 - _BESIDE else brentq(excess, value + _BESIDE, 1.0)
    return low, high


def _balanced_accuracy(value: float, patients: Sequence[int]) -> tuple[float, float]:
    """Wilson's interval of each recall, put together by squares (MOVER, Zou and Donner 2008), all recalls being `value`."""
    squares = [_wilson(value, n) for n in patients]
    low = value - sqrt(sum((value - one) ** 2 for one, _ in squares)) / len(patients)
    high = value + sqrt(sum((one - value) ** 2 for _, one in squares)) / len(patients)
    return max(0.0, low), min(1.0, high)


def _half_a_patient(value: float, patients: Sequence[int]) -> tuple[float, float]:
    """Half a patient of the smallest class to each side: that errors of so few are alike says nothing of others'."""
    half = 0.5 / min(patients)
    return max(0.0, value - half), min(1.0, value + half)


def _wilson(share: float, n: int) -> tuple[float, float]:
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


_BY_METRIC = {"auroc": _auroc, "balanced_accuracy": _balanced_accuracy}
