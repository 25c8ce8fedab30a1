"""From a cached array to the channels that a modality wants, before any scaling.

Shapes: C channels, H W of a picture, T frames of a clip, *S space (H W, or D H W).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hilum.common.config.modalities import DISPLAY_WHITE, Modality
from hilum.common.preparation.kinds import Kind

Array = npt.NDArray[Any]

_COLOURS = 3
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (Rec. ITU-R BT.601)
_FINE = np.uint16(DISPLAY_WHITE // 255)  # display values in one level of 8 bits
_BRIGHT = 0.03  # of the range of a display: compression and a sensor's offset leave less on what is black
_SMALL = (
    0.03  # of the largest piece: letters and markers are smaller, the near field of an ultrasound fan is not
)
_CELLS = 64  # along the longest edge, when borders are looked for
_MIN_EDGE = 8  # pixels; a smaller piece is not an image


def still_of(array: Array, kind: Kind) -> Array:
    """Return the middle frame of a clip, (H, W) or (H, W, 3); anything else as it is."""
    return array[len(array) // 2] if kind == "cine" else array


def grey_of(still: Array, kind: Kind) -> Array:
    """Return the luminance of a picture, (H, W); a grey one, and a volume, as it is."""
    if kind == "volume" or still.ndim == 2:  # noqa: PLR2004 - H W
        return still
    return np.asarray(still, np.float32) @ np.array(_LUMINANCE, np.float32)


def channels_of(still: Array, kind: Kind, modality: Modality) -> Array:
    """Return a picture or volume as the channels of its modality, in the values that it has.

    Colour is 8 bits a channel in the cache and is brought to the range of grey pictures, 0 black to 65535 white.

    Args:
        still: (H, W), (H, W, 3) uint8 in RGB, or (D, H, W).
        kind: Tells a picture in colour from a volume.
        modality: Says how many channels there are.

    Returns:
        (C, *S).
    """
    if kind == "volume" or still.ndim == 2:  # noqa: PLR2004 - H W
        return np.broadcast_to(still, (modality.channels, *still.shape))
    if modality.channels == _COLOURS:
        return np.moveaxis(still.astype(np.uint16) * _FINE, -1, 0)
    return np.asarray(grey_of(still, kind) * np.float32(_FINE), np.float32)[None]


def content_box(values: npt.NDArray[np.float32]) -> tuple[slice, ...]:
    """Return where the picture is on its black ground: around the large pieces that are not black.

    Letters, rulers and markers beside it, which are small pieces of their own, do not count. A fan that fluid or a shadow parts
    has several large ones.

    Args:
        values: (C, H, W) in [0, 1].

    Returns:
        An index of all channels and the part of H and W; the whole where there is hardly anything.
    """
    brightness = values.max(0)
    height, width = brightness.shape
    cell = max(1, round(max(height, width) / _CELLS))
    shown = ndimage.uniform_filter(brightness, cell, mode="nearest") > _BRIGHT
    pieces, count = ndimage.label(shown)
    whole = (slice(None), slice(0, height), slice(0, width))
    if count == 0:
        return whole
    sizes = np.bincount(pieces.ravel())[1:]
    boxes = [
        box
        for box, size in zip(ndimage.find_objects(pieces), sizes, strict=True)
        if size >= _SMALL * sizes.max()
    ]
    rows, columns = (
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in (0, 1)
    )
    if min(rows.stop - rows.start, columns.stop - columns.start) < _MIN_EDGE:
        return whole
    return slice(None), rows, columns
