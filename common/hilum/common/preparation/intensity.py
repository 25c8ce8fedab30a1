"""Where a volume's or image's values begin and end, and from where they show something."""

import numpy as np
import numpy.typing as npt

from hilum.common.config.modalities import PERCENTILES, Z_SCORE_REACH, Modality

FULL_SCALE = 65_535
"""What 1 is packed as."""
_BACKGROUND = 0.1  # of the way from 0 to 1: what lies below is air or noise


def value_range(values: npt.NDArray[np.generic], modality: Modality) -> tuple[float, float]:
    """Return the values that become 0 and 1; of an array that has one value, both are that one."""
    if modality.values is not None:
        return modality.values
    wide = np.asarray(values, np.float32)
    if modality.scale == "zscore":
        shown = wide[wide > shows_from(wide, modality)].astype(np.float64)
        if shown.size and (deviation := float(shown.std())) > 0:
            mean, reach = float(shown.mean()), Z_SCORE_REACH * deviation
            return mean - reach, mean + reach
    low, high = np.percentile(wide, PERCENTILES)
    if low == high:
        low, high = wide.min(), wide.max()
    return float(low), float(high)


def shows_from(values: npt.NDArray[np.generic], modality: Modality) -> float:
    """Return the value above which a place shows something, and not the air around the patient."""
    if modality.shows_from is not None:
        return modality.shows_from
    low, high = np.percentile(np.asarray(values, np.float32), PERCENTILES)
    return float(low + _BACKGROUND * (high - low))


def unit_range(values: npt.NDArray[np.generic], modality: Modality) -> npt.NDArray[np.float32]:
    """Bring an array with known units to [0, 1]."""
    wide = np.asarray(values, np.float32)
    low, high = value_range(wide, modality)
    scaled: npt.NDArray[np.float32] = ((wide - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    return scaled
