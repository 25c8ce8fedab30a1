"""From a cached array to the channels that a modality wants, before any scaling.

Shapes: C channels, H W of a picture, T frames of a clip, *S space (H W, or D H W).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hilum.client.state.catalogue import Kind
from hilum.common.config.modalities import DISPLAY_WHITE, Modality

Array = npt.NDArray[Any]

_COLOURS = 3
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (Rec. ITU-R BT.601)
_FINE = np.uint16(DISPLAY_WHITE // 255)  # display values in one level of 8 bits
_BRIGHT = 0.06  # of the range of a display: compression and the sensor's offset leave less on what is black
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
    """Return where the picture is on its black ground: around the largest piece that is not black.

    So letters, rulers and markers beside it, which are pieces of their own, do not count.

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
    largest = int(np.bincount(pieces.ravel())[1:].argmax())
    rows, columns = ndimage.find_objects(pieces)[largest]
    if min(rows.stop - rows.start, columns.stop - columns.start) < _MIN_EDGE:
        return whole
    return slice(None), rows, columns
