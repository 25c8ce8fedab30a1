"""From stored values to values with units.

Shapes: H rows, W columns.
"""

import numpy as np
import numpy.typing as npt

from hilum.client.intake.instance import Frame, Instance, Window
from hilum.client.intake.pixels.luts import LookUpTables
from hilum.client.intake.pixels.raw_frames import Stored, StoredFrame
from hilum.client.intake.reasons import Reason, Skip

Values = npt.NDArray[np.float32]
Display = npt.NDArray[np.uint16]
DISPLAY_MAX = 65_535
_AIR_HU = -1024.0  # the lowest value of most scanners
_WELL_BELOW_HU = 100.0
_TAILS = (0.5, 99.5)  # percentiles used where a radiograph carries no window
_FAR = 1e30
_GREATEST = 1e37  # no measurement comes near, and float32 still holds differences of such values


def rescaled(stored: Stored, frame: Frame, luts: LookUpTables | None = None) -> Values:
    """Apply the modality look-up table or rescale (PS3.3 section C.11.1): Hounsfield units for CT.

    Args:
        stored: (H, W).
        frame: Its slope and intercept.
        luts: Where the data set has tables; a modality table stands in for slope and intercept.

    Raises:
        Skip: If a number is too large for float32, or floating point pixels have a modality table.
    """
    if luts is not None and luts.modality is not None:
        if stored.dtype.kind == "f":
            raise Skip(Reason.UNSUPPORTED_PIXELS)  # a table has an entry for each whole number
        return luts.manufacturers_values(stored)
    if stored.dtype.itemsize > 2 or max(abs(frame.slope), abs(frame.intercept)) > _FAR:  # noqa: PLR2004 - of 16 bits, float32 loses none
        return _rescaled_wide(stored, frame)
    return stored.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)


def _rescaled_wide(stored: Stored, frame: Frame) -> Values:
    """Rescale in float64: a large number less a large intercept would keep few of float32's digits.

    Raises:
        Skip: If a number is too large for float32. What is infinite or no number as stored stays so.
    """
    with np.errstate(all="ignore"):
        values = stored.astype(np.float64)
        values *= frame.slope
        values += frame.intercept
        numbers = np.isfinite(stored)
        ends = values.max(initial=0, where=numbers), values.min(initial=0, where=numbers)
        if max(map(abs, ends)) > _GREATEST:
            raise Skip(Reason.NOT_FINITE)
        return values.astype(np.float32)


def padding_mask(frame: StoredFrame, instance: Instance, of: Frame) -> npt.NDArray[np.bool_] | None:
    """Return True where a pixel holds no data (PS3.3 section C.7.5.1.1.2), or None where the file names no such value.

    The padding value is often written with the other signedness than the pixels: 63536 for -2000. It is taken modulo
    the width of the cells. A value that no sample can have is looked for in the cells with their unused bits.

    A compression that loses spreads the padding of a CT over its neighbours. There is nothing thinner than air, so where
    the padding lies well below it, all that is nearer to the padding than to air is padding too. Elsewhere it is what
    lies around the padding, where a gap many times as wide parts it from the image.
    """
    if frame.values.dtype.kind == "f":
        return _nothing_there(frame.values)
    if instance.padding is None:
        return None
    low, high = sorted(_as_stored(value, frame.values.dtype) for value in instance.padding)
    empty = _between(frame.values, low, high)
    if frame.cells is not frame.values and not _holds(instance, low, high):
        empty |= _between(frame.cells, low, high)
    if instance.lossy or (frame.info is not None and not frame.info.reversible):
        empty |= _around(frame.values, low, high)
        if of.hounsfield:
            empty |= _nearer_than_air(frame.values, of, low, high)
    return empty if empty.any() else None


def _around(values: Stored, low: int, high: int) -> npt.NDArray[np.bool_]:
    """Return True near the padding, where a wide gap parts what lies around it from the image."""
    different = np.unique(values).astype(np.int64)
    first, last = (
        _end_of_cluster(low, different[different < low][::-1]),
        _end_of_cluster(high, different[different > high]),
    )
    if first is None or last is None:
        return np.zeros(values.shape, np.bool_)
    return _between(values, first, last)


def _end_of_cluster(start: int, outward: npt.NDArray[np.int64]) -> int | None:
    """Return the last value around the padding on one side, or None where values go on without a gap."""
    away = np.abs(outward - start)
    around, beyond = outward[away <= _SPREAD], outward[away > _SPREAD]
    end = int(around[-1]) if around.size else start
    return end if beyond.size == 0 or abs(int(beyond[0]) - end) >= _GAP else None


_SPREAD = 16  # stored values that a compression may move the padding by
_GAP = 4 * _SPREAD


def _nearer_than_air(values: Stored, of: Frame, low: int, high: int) -> npt.NDArray[np.bool_]:
    padding_hu = max(low * of.slope, high * of.slope) + of.intercept
    if padding_hu > _AIR_HU - _WELL_BELOW_HU:
        return np.zeros(values.shape, np.bool_)
    limit = ((padding_hu + _AIR_HU) / 2 - of.intercept) / of.slope
    below: npt.NDArray[np.bool_] = values < limit if of.slope > 0 else values > limit
    return below


def _between(values: Stored, low: int, high: int) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = values == low if low == high else (values >= low) & (values <= high)
    return found


def _nothing_there(values: Stored) -> npt.NDArray[np.bool_] | None:
    """Float pixels mark "no data" by what is not a number, whatever else they do."""
    empty: npt.NDArray[np.bool_] = ~np.isfinite(values)
    return empty if empty.any() else None


def _as_stored(value: int, dtype: np.dtype[np.integer]) -> int:
    width = 8 * dtype.itemsize
    wrapped = value & ((1 << width) - 1)
    return wrapped - (1 << width) if dtype.kind == "i" and wrapped >> (width - 1) else wrapped


def _holds(instance: Instance, low: int, high: int) -> bool:
    """Tell whether a sample of this many bits can have these values."""
    bits, signed = instance.pixels.bits_stored, instance.pixels.signed
    least = -(1 << (bits - 1)) if signed else 0
    return least <= low and high < least + (1 << bits)


def display_values(
    stored: StoredFrame, instance: Instance, frame: Frame, luts: LookUpTables | None = None
) -> Display:
    """Return what a grey image looks like on a light box: 0 black to 65535 white, bone bright.

    The file's VOI table or window where it has one, else its percentiles; MONOCHROME1 is inverted; padding is black.

    Returns:
        (H, W).

    Raises:
        Skip: If all pixels are equal.
    """
    padded = padding_mask(stored, instance, frame)
    values = rescaled(stored.values, frame, luts)
    inside = values if padded is None else values[~padded]
    if inside.size == 0 or inside.min() == inside.max():
        raise Skip(Reason.CONSTANT_PIXELS)
    if padded is not None:
        values[padded] = inside.min()
    shown = _shown(values, inside, frame, luts)
    if instance.inverted:
        shown = 1 - shown
    if padded is not None:
        shown[padded] = 0
    return np.rint(shown * DISPLAY_MAX).astype(np.uint16)


def _shown(values: Values, inside: Values, frame: Frame, luts: LookUpTables | None) -> Values:
    """Values as brightness, 0 to 1, by the first of table, window and percentiles that tells pixels apart."""
    if luts is not None and luts.voi is not None:
        shown = luts.brightness(values)
        if shown.min() < shown.max():
            return shown
    if frame.window is not None:
        shown = apply_window(values, frame.window)
        if shown.min() < shown.max():  # a window that misses the data says nothing about it
            return shown
    return _between_tails(values, inside)


def apply_window(values: Values, window: Window) -> Values:
    """Map values to 0..1 by a VOI window (PS3.3 section C.11.2.1.2.1 to C.11.2.1.3)."""
    match window.function:
        case "LINEAR":
            if window.width <= 1:  # a step (formula C.11-1 with w = 1)
                return (values > window.center - 0.5).astype(np.float32)
            shown = (values - (window.center - 0.5)) / (window.width - 1) + 0.5
        case "LINEAR_EXACT":
            shown = (values - window.center) / window.width + 0.5
        case "SIGMOID":
            with np.errstate(over="ignore"):
                shown = 1 / (1 + np.exp(-4 * (values - window.center) / window.width))
    clipped: Values = np.clip(shown, 0, 1).astype(np.float32)
    return clipped


def _between_tails(values: Values, inside: Values) -> Values:
    low, high = np.percentile(inside, _TAILS)
    if low == high:
        low, high = inside.min(), inside.max()
    shown: Values = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return shown
