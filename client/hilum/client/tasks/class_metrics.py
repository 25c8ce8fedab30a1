"""Metrics under patient weights, all bootstrap draws at once.

Shapes: R bootstrap draws, N images, K classes. A weight says how often a draw holds the image's patient.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating]
_BINS = 15


def auroc(scores: Scores, truth: npt.NDArray[np.int64], weights: Values) -> Values:
    """Area under the receiver operating characteristic; the mean over one-against-rest for more than two classes.

    Args:
        scores: (N, K) class probabilities.
        truth: (N,) class numbers.
        weights: (R, N).

    Returns:
        (R,); NaN where a draw lacks a class. A class that no image is of is left out of the mean.
    """
    tested = np.unique(truth)
    classes = tested[1:] if scores.shape[1] == 2 else tested  # noqa: PLR2004 - two classes
    areas: Values = np.mean([_auroc_of(scores[:, k], truth == k, weights) for k in classes], axis=0)
    return areas


def _auroc_of(scores: Scores, positive: npt.NDArray[np.bool_], weights: Values) -> Values:
    """Return the share of (positive, negative) pairs in the right order, ties counting half (Mann and Whitney 1947)."""
    up, down = scores[positive], scores[~positive]
    order = (up[:, None] > down) + 0.5 * (up[:, None] == down)
    w_up, w_down = weights[:, positive], weights[:, ~positive]
    pairs = w_up.sum(1) * w_down.sum(1)
    right = ((w_up @ order) * w_down).sum(1)
    area: Values = np.divide(right, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
    return area


def balanced_accuracy(scores: Scores, truth: npt.NDArray[np.int64], weights: Values) -> Values:
    """Return the mean over classes of the share that is recognised; arguments and result as in `auroc`."""
    right = scores.argmax(1) == truth
    recalls = []
    for k in np.unique(truth):
        here = weights[:, truth == k]
        total = here.sum(1)
        found = here[:, right[truth == k]].sum(1)
        recalls.append(np.divide(found, total, out=np.full(len(weights), np.nan), where=total > 0))
    mean: Values = np.mean(recalls, axis=0)
    return mean


def ece(scores: Scores, truth: npt.NDArray[np.int64], weights: Values) -> Values:
    """Return the expected calibration error (arXiv 1706.04599) over 15 equal bins of a class's probability, against the rest.

    Of more than two classes, the mean over those that are tested (arXiv 1904.01685). Arguments and result as in `auroc`.
    """
    return _mean_error(scores, truth, weights, _ece_of)


def brier(scores: Scores, truth: npt.NDArray[np.int64], weights: Values) -> Values:
    """Return the mean squared distance of a class's probability from 0 or 1 (Brier, Monthly Weather Review 78:1-3, 1950).

    Of more than two classes, the mean over those that are tested. Arguments and result as in `auroc`.
    """
    return _mean_error(scores, truth, weights, lambda share, positive, w: w @ (share - positive) ** 2)


def _mean_error(
    scores: Scores,
    truth: npt.NDArray[np.int64],
    weights: Values,
    error: Callable[[Scores, npt.NDArray[np.bool_], Values], Values],
) -> Values:
    classes = range(1, 2) if scores.shape[1] == 2 else np.unique(truth).tolist()  # noqa: PLR2004 - two classes
    mean: Values = np.mean([error(scores[:, k], truth == k, weights) for k in classes], axis=0) / weights.sum(
        1
    )
    return mean


def _ece_of(share: Scores, positive: npt.NDArray[np.bool_], weights: Values) -> Values:
    """Return the sum over bins of how far what happened is from what was said, in weights."""
    place = np.searchsorted(np.linspace(0, 1, _BINS + 1)[1:-1], share)  # a bin holds its upper edge
    in_bin = np.eye(_BINS)[place]
    gaps: Values = np.abs((weights * (positive - share)) @ in_bin).sum(1)
    return gaps


MEASURES = {"auroc": auroc, "balanced_accuracy": balanced_accuracy, "ece": ece, "brier": brier}
