"""From an item's grid to the frames that it was made of.

Shapes: D slices, H rows, W columns of an item; D' = D slices, H', W' of the stored frames.
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hilum.client.intake.planner import Tilt
from hilum.client.predictions.sources import DicomSource

Scalar = TypeVar("Scalar", bound=np.generic)


def offset_of(source: DicomSource, place: int) -> tuple[int, int]:
    """Return how far the rows and columns of the item lie from those of a stored frame: stored = item + offset.

    Of a tilted stack each slice was moved within its plane by a part of a pixel as well, which is rounded here.

    Args:
        source: Of the item.
        place: Of the slice.
    """
    if source.crop is not None:
        return source.crop[0], source.crop[1]
    if source.tilt is None:
        return 0, 0
    tilt = source.tilt
    return _shift(tilt, tilt.shift_rows, place), _shift(tilt, tilt.shift_columns, place)


def _shift(tilt: Tilt, per_slice: float, place: int) -> int:
    """Undo what `shear_resample` did to one slice along one axis."""
    first = min((tilt.shape[0] - 1) * per_slice, 0.0)
    return round(first - place * per_slice)


def on_stored_frames(array: npt.NDArray[Any], source: DicomSource) -> npt.NDArray[Any]:
    """Lay what was found on an item onto its stored frames; what the item does not show is 0.

    Args:
        array: (D, H, W), or (H, W) of an image.
        source: Of the item.

    Returns:
        (D', H', W'), of an image with D' = 1.
    """
    stack = array if array.ndim == 3 else array[np.newaxis]  # noqa: PLR2004 - D H W
    if source.tilt is not None:
        shape = source.tilt.shape
    else:
        pixels = source.frames[0].instance.pixels
        flat = source.item.kind != "volume"
        shape = (1, pixels.rows, pixels.columns) if flat else (len(stack), *stack.shape[1:])
    stored = np.zeros(shape, array.dtype)
    for place, plane in enumerate(stack):
        _lay(stored[place], plane, offset_of(source, place))
    return stored


def _lay(target: npt.NDArray[Any], plane: npt.NDArray[Any], offset: tuple[int, int]) -> None:
    """Copy what of a plane falls onto the target."""
    to, of = [], []
    for begin, there, here in zip(offset, target.shape, plane.shape, strict=True):
        first, end = max(begin, 0), min(begin + here, there)
        to.append(slice(first, max(end, first)))
        of.append(slice(first - begin, max(end, first) - begin))
    target[tuple(to)] = plane[tuple(of)]
