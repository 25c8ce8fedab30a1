"""The linear probe: a logistic regression whose ridge is chosen within the training patients, for each arm by itself.

Shapes: N images, E features, K classes.
"""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold

_STRENGTHS = (
    1e-4,
    1e-3,
    1e-2,
    1e-1,
    1.0,
)  # C, the inverse of the ridge; the first of equals is the strongest ridge
_FALLBACK = 1e-2
_FOLDS = 5
_MIN_FOLDS = 3

Features = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


class Probe:
    """A fitted probe."""

    def __init__(self, model: LogisticRegression, basis: Features) -> None:
        self._model, self._basis = model, basis
        self.classes_: Whole = model.classes_

    def predict_proba(self, features: Features) -> Features:
        """Return (M, classes that were trained on) from (M, E)."""
        found: Features = self._model.predict_proba(features @ self._basis)
        return found


def fit_probe(features: Features, classes: Whole, patients: Whole) -> Probe:
    """Fit a ridge-penalised logistic regression, classes weighted equally.

    The ridge is the one with the least log loss in a cross-validation by patient; with fewer than three patients of a
    class there is none, and one value serves. A ridge does not mind a rotation, so where features outnumber images they
    are turned into the images' span first, which gives the same probabilities and takes a fraction of the time.

    Args:
        features: (N, E), standardised.
        classes: (N,) class numbers.
        patients: (N,) patient numbers.
    """
    basis = np.eye(features.shape[1])
    if features.shape[1] > len(features):
        basis = np.linalg.svd(features, full_matrices=False)[2].T
    turned = features @ basis
    return Probe(_model(_strength(turned, classes, patients)).fit(turned, classes), basis)


def _model(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)


def _strength(features: Features, classes: Whole, patients: Whole) -> float:
    known = np.unique(classes)
    folds = min(_FOLDS, *(len(np.unique(patients[classes == k])) for k in known))
    if folds < _MIN_FOLDS:
        return _FALLBACK
    cuts = list(StratifiedGroupKFold(folds).split(features, classes, patients))
    if any(len(np.unique(classes[fit])) < len(known) for fit, _ in cuts):
        return _FALLBACK
    losses = [
        sum(
            len(held)
            * log_loss(
                classes[held],
                _model(strength).fit(features[fit], classes[fit]).predict_proba(features[held]),
                labels=known,
            )
            for fit, held in cuts
        )
        for strength in _STRENGTHS
    ]
    return _STRENGTHS[int(np.argmin(losses))]
