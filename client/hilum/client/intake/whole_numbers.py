"""Stored values to values with units without leaving whole numbers, where float32 would give the very same.

Most CT has a slope of one and a whole intercept. In int16 that is a quarter of the memory traffic.

Shapes: H rows, W columns.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.client.intake.instance import Frame, PixelFormat
from hilum.client.intake.luts import LookUpTables
from hilum.client.intake.values import Values, rescaled

Whole = npt.NDArray[np.int16]

_EXACT = 1 << 24
"""Whole numbers up to this have a float32 each."""
_LIMITS, _BYTES = np.iinfo(np.int16), 2


def in_units(stored: npt.NDArray[Any], frame: Frame, luts: LookUpTables | None = None) -> Values | Whole:
    """What `rescaled` gives, (H, W), as int16 where every value is a whole number that fits."""
    if luts is None and stored.dtype.kind in "iu" and stored.dtype.itemsize <= _BYTES and stored.size:
        out = np.empty(stored.shape, np.int16)
        if rescale_whole(stored, (int(stored.min()), int(stored.max())), frame, out) is not None:
            return out
    return rescaled(stored, frame, luts)


def rescale_whole(
    stored: npt.NDArray[Any], span: tuple[int, int], frame: Frame, out: Whole
) -> tuple[int, int] | None:
    """Rescale within int16, if float32 would give the same.

    Args:
        stored: (H, W), whole numbers of at most 16 bits.
        span: Its lowest and highest value.
        frame: Slope and intercept.
        out: (H, W); may be the memory of `stored` itself.

    Returns:
        The lowest and the highest value in `out`, or None where it was left as it is.
    """
    if not (float(frame.slope).is_integer() and float(frame.intercept).is_integer()):
        return None
    # A slope below zero makes zeros with a sign, which int16 has not.
    if not (0 < frame.slope <= _EXACT and abs(frame.intercept) <= _EXACT):
        return None
    slope, intercept = int(frame.slope), int(frame.intercept)
    products = [value * slope for value in span]
    low, high = (product + intercept for product in products)
    if max(map(abs, products)) > _EXACT or low < _LIMITS.min or high > _LIMITS.max:
        return None
    # Products and sums are taken modulo 2^16; what comes out fits, so it is right.
    whole = stored.view(np.int16) if stored.dtype.itemsize == out.itemsize else stored.astype(np.int16)
    if slope != 1:
        whole = np.multiply(whole, _wrapped(slope), out=out)
    if intercept:
        np.add(whole, _wrapped(intercept), out=out)
    elif not np.may_share_memory(whole, out):
        np.copyto(out, whole)
    return low, high


def _wrapped(number: int) -> np.int16:
    """A whole number modulo 2^16."""
    return np.int16((number + (1 << 15)) % (1 << 16) - (1 << 15))


def fits_container(low: int, high: int, pixels: PixelFormat) -> bool:
    """Whether no value has a bit outside of those stored, so that nothing is to be cut out (PS3.5 section 8.1.1)."""
    least = -(1 << (pixels.bits_stored - 1)) if pixels.signed else 0
    return least <= low and high < least + (1 << pixels.bits_stored)
