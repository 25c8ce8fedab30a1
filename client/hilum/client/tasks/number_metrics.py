"""Metrics of predicted numbers under patient weights, all bootstrap draws at once.

Shapes: R bootstrap draws, N images. A weight says how often a draw holds the image's patient.
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

_ROUNDING = 1e-12  # of a sum of squares: less is what rounding left of nothing

Values = npt.NDArray[np.float64]


def r2(predicted: Values, truth: Values, weights: Values) -> Values:
    """Return the coefficient of determination, (R,): 1 less the squared error over that of the tested images' own mean.

    0 is predicting the mean. It has no lower bound; what is below -1 is given as -1, for it is as useless. NaN where all images
    of a draw have one number.

    Args:
        predicted: (N,).
        truth: (N,).
        weights: (R, N).
    """
    error = weights @ np.square(predicted - truth)
    spread = _centred_squares(truth, weights)
    share = np.divide(error, spread, out=np.full(len(weights), np.nan), where=spread > 0)
    bounded: Values = np.maximum(-1.0, 1.0 - share)
    return bounded


def spearman(predicted: Values, truth: Values, weights: Values) -> Values:
    """Return the rank correlation, (R,), of ranks among all images; 0 where the predictions don't differ."""
    one, other = rankdata(predicted), rankdata(truth)
    total = weights.sum(1)
    both = weights @ (one * other) - (weights @ one) * (weights @ other) / total
    spread = np.sqrt(_centred_squares(one, weights) * _centred_squares(other, weights))
    found: Values = np.divide(both, spread, out=np.zeros(len(weights)), where=spread > 0)
    return np.clip(found, -1.0, 1.0)


def mean_of(of_image: Values, weights: Values) -> Values:
    """Return the weighted mean of something of each image, (R,)."""
    found: Values = weights @ of_image / weights.sum(1)
    return found


def _centred_squares(values: Values, weights: Values) -> Values:
    """Return the weighted squares around the weighted mean, (R,); values are centred first, against cancellation."""
    centred = values - values.mean()
    of_all: Values = weights @ np.square(centred)
    squares: Values = of_all - np.square(weights @ centred) / weights.sum(1)
    return np.where(squares > _ROUNDING * of_all, squares, 0.0)
