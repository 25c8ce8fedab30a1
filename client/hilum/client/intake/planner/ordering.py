"""From planes with one position each to regular runs: positions decide, instance numbers are never asked.

Shapes: D slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hilum.client.intake.planner.geometry import MIN_SLICES, Axes, Plane, along_normal, axes_of, tolerance_mm
from hilum.client.intake.reasons import Reason, Skip

_MAX_TILT_DEG = 45.0  # gantries reach 30; a stack that moves more sideways than onwards is none


@dataclass(frozen=True, eq=False)
class Run:
    """Planes at equal steps.

    Attributes:
        step_mm: (3,), from one plane's first voxel to the next one's, in LPS.
        deviation_mm: How far a plane lies from its place, at most.
    """

    planes: tuple[Plane, ...]
    axes: Axes
    step_mm: npt.NDArray[np.float64]
    deviation_mm: float

    @property
    def distance_mm(self) -> float:
        """Between neighbouring slices, along the normal."""
        return float(self.step_mm @ self.axes.normal)

    @property
    def tilt_deg(self) -> float:
        """Between the step and the normal."""
        sideways = float(np.linalg.norm(self.step_mm - self.distance_mm * self.axes.normal))
        return float(np.degrees(np.arctan2(sideways, self.distance_mm)))


def regular_runs(planes: Sequence[Plane]) -> list[Run]:
    """Return the regular runs of a stack, in order; one where nothing is missing.

    A missing slice leaves a correct stack on either side of it, and so does a change of the slice distance. Where
    fewer than half of the slices lie in runs of four or more, what is regular is so by chance, and nothing is taken.

    Raises:
        Skip: `TOO_FEW_SLICES`; `IRREGULAR_SPACING`; or `LYING_GEOMETRY` where slices at equal distances wander
            sideways, or all of them lie in one plane.
    """
    if len(planes) < MIN_SLICES:
        raise Skip(Reason.TOO_FEW_SLICES)
    axes = axes_of(planes[0].orientation)
    along = along_normal(planes, axes)
    order = np.argsort(along, kind="stable")
    ordered = [planes[index] for index in order]
    positions = np.array([plane.position for plane in ordered])
    runs = [
        run
        for first, last in _segments(positions, axes)
        if (run := _run(ordered[first : last + 1], positions[first : last + 1], axes)) is not None
    ]
    if 2 * sum(len(run.planes) for run in runs) < len(planes):
        heights = along[order]
        grid = np.linspace(heights[0], heights[-1], len(planes))
        even = float(np.abs(heights - grid).max()) <= tolerance_mm(float(grid[1] - grid[0]))
        raise Skip(Reason.LYING_GEOMETRY if even else Reason.IRREGULAR_SPACING)
    return runs


def _segments(positions: npt.NDArray[np.float64], axes: Axes) -> list[tuple[int, int]]:
    """First and last index of stretches of equal steps, at least four slices each; none shares a slice.

    Where two stretches meet in one slice, the longer one has it.
    """
    steps = np.diff(positions, axis=0)
    found: list[tuple[int, int]] = []
    start = 0
    for index in range(1, len(steps) + 1):
        # Both ends of a step may be rounded, hence twice.
        limit = 2 * tolerance_mm(float(steps[start] @ axes.normal))
        if index == len(steps) or float(np.abs(steps[index] - steps[start]).max()) > limit:
            found.append((start, index))
            start = index
    taken = np.zeros(len(positions), bool)
    kept: list[tuple[int, int]] = []
    for first, last in sorted(found, key=lambda ends: (ends[0] - ends[1], ends[0])):
        start = first + int(taken[first])
        end = last - int(taken[last])
        if end - start + 1 >= MIN_SLICES:
            taken[start : end + 1] = True
            kept.append((start, end))
    return sorted(kept)


def _run(planes: Sequence[Plane], positions: npt.NDArray[np.float64], axes: Axes) -> Run | None:
    """Return the planes on a regular grid through the first and the last, or None where one lies off it."""
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    distance = float(step @ axes.normal)
    grid = positions[0] + np.outer(np.arange(len(planes)), step)
    deviation = float(np.linalg.norm(positions - grid, axis=1).max())
    run = Run(tuple(planes), axes, step, deviation)
    if distance <= 0 or deviation > tolerance_mm(distance) or run.tilt_deg > _MAX_TILT_DEG:
        return None
    return run
