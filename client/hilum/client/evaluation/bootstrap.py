"""Patient-level bootstrap: patients are drawn, never images, and the same draws serve every arm."""

import numpy as np
import numpy.typing as npt

from hilum.client.tasks.base import Interval
from hilum.common.seeding import generator

_LEVELS = (2.5, 97.5)


def patient_draws(
    group: npt.NDArray[np.int64], strata: npt.NDArray[np.int64], draws: int, *, seed: int, site: str
) -> npt.NDArray[np.float64]:
    """Return weights (1 + draws, N): a first row of ones for the value itself, then one resample of patients a row.

    Patients are drawn among those of the same strata (Efron and Tibshirani 1993, chapter 8), so that no resample lacks
    a class.

    Args:
        group: (N,) the patient number of each image.
        strata: (N,) numbers, such as of classes; all alike where there are none.
        draws: How many resamples.
        seed: The study's.
        site: Its name: two sites of one size do not draw alike.
    """
    patients, place = np.unique(group, return_inverse=True)
    classes_of = [tuple(np.unique(strata[place == number])) for number in range(len(patients))]
    rng = generator(seed, "bootstrap", site)
    counts = np.zeros((draws, len(patients)))
    for classes in sorted(set(classes_of)):
        members = [number for number, one in enumerate(classes_of) if one == classes]
        share = np.full(len(members), 1 / len(members))
        counts[:, members] = rng.multinomial(len(members), share, size=draws)
    return np.concatenate([np.ones((1, len(group))), counts[:, place]])


def interval(draws: npt.NDArray[np.float64]) -> Interval:
    """Return the percentile interval of a metric from its values over `patient_draws`; draws that don't define it are left out."""
    defined = draws[1:][np.isfinite(draws[1:])]
    low, high = np.percentile(defined, _LEVELS) if len(defined) else (np.nan, np.nan)
    return Interval(float(draws[0]), float(low), float(high))
