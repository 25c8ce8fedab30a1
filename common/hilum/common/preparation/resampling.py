"""Resample a volume slice by slice: whatever its depth, a few slices are in memory.

Shapes: D slices, H rows, W columns, before and after; T taps.

Linear interpolation where voxels become smaller, and a triangle as wide as two new voxels where they become larger, so that
none of the old ones is skipped. The old and the new volume have the same centre, and the new spacing is exact: the
new volume is longer or shorter by at most half a voxel at its ends. Every value is a short sum in a fixed order, so that it
does not depend on the number of threads.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Slice = npt.NDArray[np.float32]
Spacing = tuple[float, ...]
_ROUNDING = 1e-9  # a weight below is what is left of 0


@dataclass(frozen=True)
class Taps:
    """Which old values each new one along an axis is the weighted sum of.

    Attributes:
        index: (new, T).
        weight: (new, T), rows sum to 1.
    """

    index: npt.NDArray[np.int64] = field(repr=False)
    weight: npt.NDArray[np.float32] = field(repr=False)

    @classmethod
    def between(cls, count: int, spacing_mm: float, target_mm: float) -> "Taps":
        """Return the taps of an axis of `count` values."""
        new = count_after(count, spacing_mm, target_mm)
        begins_mm = (count * spacing_mm - new * target_mm) / 2
        middle = (begins_mm + (np.arange(new) + 0.5) * target_mm) / spacing_mm - 0.5
        reach = max(1.0, target_mm / spacing_mm)
        index = np.floor(middle - reach).astype(np.int64)[:, None] + np.arange(int(2 * reach) + 3)
        weight = np.maximum(0, 1 - np.abs(index - middle[:, None]) / reach)
        weight[(index < 0) | (index >= count) | (weight < _ROUNDING)] = 0
        used = weight.any(0)
        index, weight = index[:, used], weight[:, used]
        return cls(index.clip(0, count - 1), (weight / weight.sum(1, keepdims=True)).astype(np.float32))

    @property
    def changes_nothing(self) -> bool:
        """Whether each new value is the old one in its place."""
        return self.index.shape[1] == 1 and np.array_equal(self.index[:, 0], np.arange(len(self.index)))

    def along(self, values: Slice, axis: int) -> Slice:
        """Resample (H, W) along one axis."""
        if self.changes_nothing:
            return values
        shape = [-1 if axis == other else 1 for other in range(values.ndim)]
        made = values.take(self.index[:, 0], axis) * self.weight[:, 0].reshape(shape)
        for tap in range(1, self.index.shape[1]):
            made += values.take(self.index[:, tap], axis) * self.weight[:, tap].reshape(shape)
        return made


def count_after(count: int, spacing_mm: float, target_mm: float) -> int:
    """Return how many values an axis of `count` has after resampling; at least one."""
    return max(1, round(count * spacing_mm / target_mm))


def shape_after(shape: tuple[int, ...], spacing_mm: Spacing, target_mm: Spacing) -> tuple[int, ...]:
    """Return the shape of a volume after resampling."""
    return tuple(map(count_after, shape, spacing_mm, target_mm))


def resampled(values: npt.NDArray[np.generic], spacing_mm: Spacing, target_mm: Spacing) -> Iterator[Slice]:
    """Give the slices of the resampled volume, first to last.

    Args:
        values: (D, H, W), of which one slice is read after the other.
        spacing_mm: Of each axis.
        target_mm: What it becomes.

    Yields:
        float32 (H, W) on the scale of `values`.
    """
    deep, rows, columns = map(Taps.between, values.shape, spacing_mm, target_mm)
    planes: dict[int, Slice] = {}
    for index, weight in zip(deep.index, deep.weight, strict=True):
        needed = [(int(old), share) for old, share in zip(index, weight, strict=True) if share]
        planes = {old: planes[old] for old, _ in needed if old in planes}
        for old, _ in needed:
            if old not in planes:
                plane = np.asarray(values[old], np.float32)
                planes[old] = columns.along(rows.along(plane, 0), 1)
        made = planes[needed[0][0]] * needed[0][1]
        for old, share in needed[1:]:
            made += planes[old] * share
        yield made
