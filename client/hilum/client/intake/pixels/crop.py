"""A rectangular part of an image or of each frame of a clip."""

from typing import Any

import numpy.typing as npt

Pixels = npt.NDArray[Any]
Crop = tuple[int, int, int, int]
"""First row, first column, row after the last, column after the last."""


def cropped(array: Pixels, crop: Crop, first_axis: int) -> Pixels:
    """Return a part of an image (`first_axis` 0) or of each frame (1)."""
    part = (slice(crop[0], crop[2]), slice(crop[1], crop[3]))
    return array[(slice(None),) * first_axis + part]
