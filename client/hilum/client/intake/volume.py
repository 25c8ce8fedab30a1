"""From the planes of a planned volume to the array that is kept.

Shapes: D slices, H rows, W columns.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hilum.client.intake.images import Plane
from hilum.client.intake.planner import PlaneId, PlannedVolume, assemble
from hilum.client.intake.reasons import Reason, Skip

Values = npt.NDArray[np.float32] | npt.NDArray[np.int16]


def build_volume(planned: PlannedVolume, planes: Mapping[PlaneId, Plane]) -> Values:
    """Stack the planes of one volume; voxels without data take the lowest value of those with data.

    Args:
        planned: What the planner says.
        planes: Every plane that it names, also those to be verified.

    Returns:
        (D, H, W) of the planned shape.

    Raises:
        Skip: If planes taken for copies differ, or there is nothing to see.
    """
    used = [planes[plane] for plane in planned.planes]
    lowest = [_lowest(plane) for plane in used]
    seen = [value for value in lowest if value is not None]
    if not seen:
        raise Skip(Reason.CONSTANT_PIXELS)
    background = min(seen)
    whole = all(plane.values.dtype == np.int16 for plane in used)
    filling = np.int16(background) if whole else np.float32(background)
    volume, _affine = assemble(planned, lambda *plane: _filled(planes[plane], filling), background)
    if volume.min() == volume.max():
        raise Skip(Reason.CONSTANT_PIXELS)
    return compact(volume)


def _lowest(plane: Plane) -> float | None:
    inside = plane.values if plane.empty is None else plane.values[~plane.empty]
    return float(inside.min()) if inside.size else None


def _filled(plane: Plane, filling: np.int16 | np.float32) -> Values:
    return plane.values if plane.empty is None else np.where(plane.empty, filling, plane.values)


def compact(volume: Values) -> Values:
    """Store whole numbers in the range of int16 as such; anything else stays float32. No value changes."""
    if volume.dtype == np.int16:
        return volume
    limits = np.iinfo(np.int16)
    if volume.min() < limits.min or volume.max() > limits.max:
        return volume
    whole = volume.astype(np.int16)
    return whole if np.array_equal(whole, volume) else volume
