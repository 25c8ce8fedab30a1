"""Metrics under patient weights, all bootstrap draws at once.

Shapes: R bootstrap draws, N images, K classes. A weight says how often a draw holds the image's patient.
"""

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating]


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


MEASURES = {"auroc": auroc, "balanced_accuracy": balanced_accuracy}
