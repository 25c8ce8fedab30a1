"""Bring a volume of which patches or slices are taken to spacing and range, slice by slice, and note what shows something.

Shapes: D slices, H rows, W columns; k cells.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hilum.common.config.data import DataSection
from hilum.common.preparation.intensity import FULL_SCALE, shows_from, value_range
from hilum.common.preparation.pieces import Box, Cells, Geometry
from hilum.common.preparation.resampling import Slice, Spacing, resampled, shape_after


def packed_values(
    values: npt.NDArray[np.generic], spacing_mm: Spacing, data: DataSection
) -> tuple[npt.NDArray[np.uint16], Cells]:
    """Return a volume as it is packed, (D, H, W) and (k,), in memory."""
    target_mm = target_spacing(values.shape, spacing_mm, data)
    facts, cell = data.facts, Geometry.of(data).cell
    shown = ShownCells(shape_after(values.shape, spacing_mm, target_mm), cell, shows_from(values, facts))
    span = value_range(values, facts)
    planes = shown.watching(resampled(values, spacing_mm, target_mm))
    return np.stack([scaled_plane(plane, span) for plane in planes]), shown.cells()


def target_spacing(shape: tuple[int, ...], spacing_mm: Spacing, data: DataSection) -> Spacing:
    """Return what a volume is resampled to: of slices, what makes the longest edge fill the image."""
    if data.spacing_mm is not None:
        return data.spacing_mm
    longest = max(shape[1] * spacing_mm[1], shape[2] * spacing_mm[2]) / data.store_size
    return spacing_mm[0], longest, longest


def scaled_plane(plane: Slice, span: tuple[float, float]) -> npt.NDArray[np.uint16]:
    """Bring a slice to the whole range of uint16."""
    low, high = span
    unit = ((plane - np.float32(low)) / np.float32(high - low if high > low else 1)).clip(0, 1)
    packed: npt.NDArray[np.uint16] = np.rint(unit * FULL_SCALE).astype(np.uint16)
    return packed


class ShownCells:
    """Notes which cells of a volume show something, while its slices pass.

    Args:
        shape: Of the volume.
        cell: Edges of a cell.
        bound: What the mean of a cell that shows something lies above.
    """

    def __init__(self, shape: Sequence[int], cell: Box, bound: float) -> None:
        self.cell, self.bound = cell, bound
        self.edges = [np.arange(0, whole, edge) for whole, edge in zip(shape, cell, strict=True)]
        self.sums = np.zeros([len(edges) for edges in self.edges], np.float64)
        self.counts = [np.diff([*edges, whole]) for edges, whole in zip(self.edges, shape, strict=True)]

    def watching(self, planes: Iterator[Slice]) -> Iterator[Slice]:
        """Yield the slices as they come."""
        for number, plane in enumerate(planes):
            rows = np.add.reduceat(plane, self.edges[1], axis=0)
            self.sums[number // self.cell[0]] += np.add.reduceat(rows, self.edges[2], axis=1)
            yield plane

    def cells(self) -> Cells:
        """Return the indices of those that do, (k,), in C order."""
        deep, high, wide = self.counts
        means = self.sums / (deep[:, None, None] * high[:, None] * wide)
        return np.flatnonzero(means > self.bound).astype(np.int32)
