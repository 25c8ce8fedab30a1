"""Stored values to values with units without leaving whole numbers, where float32 would give the very same.

Most CT has a slope of one and a whole intercept. In int16 that is a quarter of the memory traffic.

Shapes: H rows, W columns.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.client.intake.instance import Frame, PixelFormat
from hilum.client.intake.pixels.luts import LookUpTables
from hilum.client.intake.pixels.rescale import Values, rescaled
from hilum.client.intake.pixels.value_range import ValueRange

Whole = npt.NDArray[np.int16]

_EXACT = 1 << 24
"""Whole numbers up to this have a float32 each."""
_LIMITS, _BYTES = np.iinfo(np.int16), 2


def in_units(stored: npt.NDArray[Any], frame: Frame, luts: LookUpTables | None = None) -> Values | Whole:
    """Return what `rescaled` gives, (H, W), as int16 where every value is a whole number that fits."""
    if luts is None and stored.dtype.kind in "iu" and stored.dtype.itemsize <= _BYTES and stored.size:
        out = np.empty(stored.shape, np.int16)
        if rescale_whole(stored, ValueRange(stored), frame, out):
            return out
    return rescaled(stored, frame, luts)


def rescale_whole(stored: npt.NDArray[Any], extent: ValueRange, frame: Frame, out: Whole) -> bool:
    """Rescale within int16, if float32 would give the same.

    Args:
        stored: (H, W), whole numbers of at most 16 bits.
        extent: Of these.
        frame: Slope and intercept.
        out: (H, W); may be the memory of `stored` itself.

    Returns:
        Whether it would; if not, `out` is left as it is.
    """
    if not (float(frame.slope).is_integer() and float(frame.intercept).is_integer()):
        return False
    # A slope below zero makes zeros with a sign, which int16 has not.
    if not (0 < frame.slope <= _EXACT and abs(frame.intercept) <= _EXACT):
        return False
    slope, intercept = int(frame.slope), int(frame.intercept)
    # Of the product: exact itself, and within int16 once the intercept is added.
    least, greatest = max(-_EXACT, _LIMITS.min - intercept), min(_EXACT, _LIMITS.max - intercept)
    if not extent.within(-(-least // slope), greatest // slope):
        return False
    # Products and sums are taken modulo 2^16; what comes out fits, so it is right.
    whole = stored.view(np.int16) if stored.dtype.itemsize == out.itemsize else stored.astype(np.int16)
    if slope != 1:
        whole = np.multiply(whole, _wrapped(slope), out=out)
    if intercept:
        np.add(whole, _wrapped(intercept), out=out)
    elif not np.may_share_memory(whole, out):
        np.copyto(out, whole)
    return True


def _wrapped(number: int) -> np.int16:
    """Return a whole number modulo 2^16."""
    return np.int16((number + (1 << 15)) % (1 << 16) - (1 << 15))


def fits_container(extent: ValueRange, pixels: PixelFormat) -> bool:
    """Tell whether no value has a bit outside of those stored, so that nothing is to be cut out (PS3.5 section 8.1.1)."""
    least = -(1 << (pixels.bits_stored - 1)) if pixels.signed else 0
    return extent.within(least, least + (1 << pixels.bits_stored) - 1)
