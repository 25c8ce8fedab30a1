"""From the planes of a planned volume to the array that is kept.

Shapes: D slices, H rows, W columns.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hilum.client.intake.images import Plane
from hilum.client.intake.planner import PlaneId, PlannedVolume, assemble
from hilum.client.intake.reasons import Reason, Skip


def build_volume(
    planned: PlannedVolume, planes: Mapping[PlaneId, Plane]
) -> npt.NDArray[np.int16] | npt.NDArray[np.float32]:
    """Stack the planes of one volume; voxels without data take the lowest value of those with data.

    Args:
        planned: What the planner says.
        planes: Every plane that it names, also those to be verified; emptied on the way, to hold them once only.

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
    volume, _affine = assemble(planned, lambda *plane: _filled(planes[plane], background), background)
    if volume.min() == volume.max():
        raise Skip(Reason.CONSTANT_PIXELS)
    return compact(volume)


def _lowest(plane: Plane) -> float | None:
    inside = plane.values if plane.empty is None else plane.values[~plane.empty]
    return float(inside.min()) if inside.size else None


def _filled(plane: Plane, background: float) -> npt.NDArray[np.float32]:
    return (
        plane.values if plane.empty is None else np.where(plane.empty, np.float32(background), plane.values)
    )


def compact(volume: npt.NDArray[np.float32]) -> npt.NDArray[np.int16] | npt.NDArray[np.float32]:
    """Store whole numbers in the range of int16 as such; anything else stays float32. No value changes."""
    limits = np.iinfo(np.int16)
    if volume.min() < limits.min or volume.max() > limits.max:
        return volume
    whole = volume.astype(np.int16)
    return whole if np.array_equal(whole, volume) else volume
