"""Calibration by temperature (arXiv 1706.04599): outputs are divided by one number, so that probabilities are as sure as they are right.

Shapes: n validation images, K classes.

What is most probable stays so; of two classes, the order of images stays too, and with it AUROC. Of more classes, the order
of images within one class may change.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

_LOG_RANGE = (-4.0, 4.0)
"""Of the logarithm of a temperature: outputs that tell all validation images apart have no best one, and stop here."""


def fit_temperature(outputs: npt.NDArray[np.float64], classes: npt.NDArray[np.int64]) -> float:
    """Return the temperature with the least mean negative log likelihood.

    Args:
        outputs: (n, K), before a softmax.
        classes: (n,) class numbers.
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(outputs / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(classes)), classes].mean())

    return float(
        np.exp(minimize_scalar(loss, bounds=_LOG_RANGE, method="bounded", options={"xatol": 1e-8}).x)
    )
