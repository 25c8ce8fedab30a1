"""Colour images to RGB, 8 bits a channel (PS3.3 section C.7.6.3.1.2).

Shapes: H rows, W columns.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.client.intake.instance import PixelFormat
from hilum.client.intake.pixels.luts import LookUpTables
from hilum.client.intake.pixels.raw_frames import StoredFrame
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import JPEG_2000

Colours = npt.NDArray[np.uint8]

_BYTE_BITS = 8
_RGB_FROM_DECODER = {"YBR_ICT", "YBR_RCT"}  # undone inside JPEG 2000 (PS3.5 section 8.2.4)
_YBR = {"YBR_FULL", "YBR_FULL_422"}


def to_rgb(frame: StoredFrame, pixels: PixelFormat, luts: LookUpTables | None) -> Colours:
    """Return one colour frame as RGB.

    Where the code stream itself says what its samples are, it is believed: headers are often left as they were before
    compression.

    Returns:
        (H, W, 3).

    Raises:
        Skip: If the photometric interpretation is none that is read, or a palette is missing.
    """
    if pixels.photometric == "PALETTE COLOR":
        if luts is None or frame.values.ndim != 2:  # noqa: PLR2004 - one index a pixel
            raise Skip(Reason.MISSING_ATTRIBUTE)
        return luts.colours(frame.values)
    if frame.values.ndim != 3 or pixels.signed or frame.values.dtype.kind != "u":  # noqa: PLR2004 - (H, W, 3)
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    space = _space(frame, pixels)
    in_bytes = _in_bytes(frame.values, pixels.bits_stored)
    if space == "RGB":
        return np.ascontiguousarray(in_bytes)
    from pydicom.pixels.processing import convert_color_space

    return np.asarray(convert_color_space(np.ascontiguousarray(in_bytes), "YBR_FULL", "RGB"), np.uint8)


def _space(frame: StoredFrame, pixels: PixelFormat) -> str:
    if frame.info is not None and frame.info.colour is not None:
        return frame.info.colour
    jpeg_2000 = pixels.syntax in JPEG_2000
    if pixels.photometric == "RGB" or (jpeg_2000 and pixels.photometric in _RGB_FROM_DECODER):
        return "RGB"
    if pixels.photometric in _YBR:
        return "YBR"
    raise Skip(Reason.UNSUPPORTED_PIXELS)


def _in_bytes(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    if bits == _BYTE_BITS:
        return values.astype(np.uint8)
    if bits > _BYTE_BITS:
        return (values >> (bits - _BYTE_BITS)).astype(np.uint8)
    full = (1 << bits) - 1
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
