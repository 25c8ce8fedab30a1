"""From the planes of a planned volume to the array that is kept.

Shapes: D slices, H rows, W columns.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hilum.client.intake.pixels.images import Plane
from hilum.client.intake.pixels.value_range import is_constant
from hilum.client.intake.planner import PlaneId, PlannedVolume, upright, verify_copies
from hilum.client.intake.reasons import Reason, Skip

Values = npt.NDArray[np.float32] | npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]


class VolumeBuilder:
    """Takes the planes of one volume as they come, each of them held once."""

    def __init__(self, planned: PlannedVolume) -> None:
        self._planned = planned
        self._places = {plane: place for place, plane in enumerate(planned.planes)}
        self._missing = set(planned.planes)
        self._copies = {copy for _kept, copy in planned.verify_equal}
        self._to_verify: dict[PlaneId, Plane] = {}
        self._stack: Values | None = None
        self._masks: dict[int, Mask] = {}
        self._alike = True

    def add(self, plane: PlaneId, content: Plane) -> None:
        """Take one plane; one that the volume does not name is passed over."""
        if plane in self._copies:
            self._to_verify[plane] = content
        if plane not in self._places:
            return
        self._missing.discard(plane)
        values, place = content.values, self._places[plane]
        if self._stack is None:
            self._stack = np.empty((len(self._places), *values.shape), values.dtype)
        elif self._stack.dtype != np.float32 and values.dtype != np.int16:
            self._stack = self._stack.astype(np.float32)
        if values.shape != self._stack.shape[1:]:
            self._alike = False
            return
        self._stack[place] = values
        if content.empty is not None:
            self._masks[place] = content.empty

    def finished(self) -> Values:
        """Return the array, once every plane was added; voxels without data take the lowest value of those with data.

        Returns:
            (D, H, W) of the planned shape.

        Raises:
            Skip: If planes taken for copies differ, planes differ in size, or there is nothing to see.
        """
        assert not self._missing, "a plane was not added"
        stack = self._stack
        if not self._alike:
            raise Skip(Reason.MIXED_GEOMETRY)
        assert stack is not None
        background = self._background(stack)
        filling = fill_empty(stack, self._masks, background)

        def plane_of(*plane: int) -> Values:
            index, frame = plane
            if (copy := self._to_verify.get((index, frame))) is None:
                kept: Values = stack[self._places[index, frame]]
                return kept
            return copy.values if copy.empty is None else np.where(copy.empty, filling, copy.values)

        verify_copies(self._planned, plane_of)
        volume, _affine = upright(self._planned, stack, background)
        if is_constant(volume):
            raise Skip(Reason.CONSTANT_PIXELS)
        return compact(volume)

    def _background(self, stack: Values) -> float:
        """Return the lowest value with data; 0 where nothing is to be filled with it.

        Raises:
            Skip: If no voxel has data.
        """
        copies = any(copy.empty is not None for copy in self._to_verify.values())
        if not (self._masks or copies or self._planned.tilt is not None):
            return 0.0
        return lowest_with_data(stack, self._masks)


def build_volume(planned: PlannedVolume, planes: Mapping[PlaneId, Plane]) -> Values:
    """Return the array of planes that are all at hand; see `VolumeBuilder`.

    Args:
        planned: What the planner says.
        planes: Every plane that it names, also those to be verified.
    """
    builder = VolumeBuilder(planned)
    for plane, content in planes.items():
        builder.add(plane, content)
    return builder.finished()


def lowest_with_data(stack: Values, masks: Mapping[int, Mask]) -> float:
    """Return the lowest value of the voxels that have data.

    Args:
        stack: (D, H, W).
        masks: By slice, (H, W), True where there is no data.

    Raises:
        Skip: If no voxel has any.
    """
    masked = ((plane, masks.get(place)) for place, plane in enumerate(stack))
    with_data = (plane if empty is None else plane[~empty] for plane, empty in masked)
    lowest = [float(values.min()) for values in with_data if values.size]
    if not lowest:
        raise Skip(Reason.CONSTANT_PIXELS)
    return min(lowest)


def fill_empty(stack: Values, masks: Mapping[int, Mask], value: float) -> np.int16 | np.float32:
    """Put a value, of the stack's type, where there is no data; see `lowest_with_data`. Gives it."""
    filling = np.int16(value) if stack.dtype == np.int16 else np.float32(value)
    for place, empty in masks.items():
        np.copyto(stack[place], filling, where=empty)
    return filling


def compact(volume: Values) -> Values:
    """Store whole numbers in the range of int16 as such; anything else stays float32. No value changes."""
    if volume.dtype == np.int16:
        return volume
    limits = np.iinfo(np.int16)
    if volume.min() < limits.min or volume.max() > limits.max:
        return volume
    whole = volume.astype(np.int16)
    return whole if np.array_equal(whole, volume) else volume
