"""The linear probe of numbers: a ridge regression whose strength is chosen within the training patients, for each arm by itself.

Shapes: N images, E features.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

STRENGTHS = (1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3)  # the first of equals is the strongest
_FALLBACK = 1.0
_FOLDS = 5
_MIN_FOLDS = 3

Features = npt.NDArray[np.floating]
Values = npt.NDArray[np.float64]


def fit_ridge(
    features: Features, values: Values, patients: npt.NDArray[np.int64]
) -> Callable[[Features], Values]:
    """Fit a ridge regression on standardised features, and return what predicts from other features.

    The strength is the one with the least squared error in a cross-validation by patient; with fewer than three patients there
    is none, and one value serves. Features are divided by the root of their number too, so that a strength means the same for
    any encoder. Where they outnumber images they are turned into the images' span first, which changes no prediction.

    Args:
        features: (N, E).
        values: (N,).
        patients: (N,) patient numbers.
    """
    scaler = StandardScaler().fit(features.astype(np.float64))
    root = np.sqrt(features.shape[1])

    def scaled(some: Features) -> Values:
        found: Values = scaler.transform(some.astype(np.float64)) / root
        return found

    known = scaled(features)
    basis = np.linalg.svd(known, full_matrices=False)[2].T if known.shape[1] > len(known) else None
    turned = known if basis is None else known @ basis
    model = Ridge(alpha=_strength(turned, values, patients)).fit(turned, values)

    def predict(some: Features) -> Values:
        found: Values = model.predict(scaled(some) if basis is None else scaled(some) @ basis)
        return found

    return predict


def _strength(features: Values, values: Values, patients: npt.NDArray[np.int64]) -> float:
    folds = min(_FOLDS, len(np.unique(patients)))
    if folds < _MIN_FOLDS:
        return _FALLBACK
    cuts = list(GroupKFold(folds).split(features, values, patients))
    errors = [
        sum(
            np.square(
                Ridge(alpha=one).fit(features[fit], values[fit]).predict(features[held]) - values[held]
            ).sum()
            for fit, held in cuts
        )
        for one in STRENGTHS
    ]
    return STRENGTHS[int(np.argmin(errors))]
