"""Where one plane lies: its axes and position, once they are shown to be possible.

The source of all of it is PS3.3 section C.7.6.2 (Image Plane Module).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from hilum.client.intake.headers.mosaic import tile_shape
from hilum.client.intake.instance import Frame, Instance
from hilum.client.intake.planner.records import PlaneId
from hilum.client.intake.reasons import Reason, Skip

Vector = npt.NDArray[np.float64]

MIN_SLICES = 4
TOLERANCE = 0.01  # of the slice distance: what scanners' rounded positions stay within
FLOOR_MM = 0.01  # positions are often written with two decimals
_NORM_TOLERANCE = 1e-3  # what rounding to three decimals does to a unit vector: sqrt(3) * 0.0005
_RIGHT_ANGLE_TOLERANCE = 2e-3  # and to the product of two: 2 * sqrt(3) * 0.0005
_MAX_COORDINATE_MM = 10_000.0  # no scanner's table is ten metres long
_MAX_SPACING_MM = 1_000.0


@dataclass(frozen=True, eq=False)
class Plane:
    """One frame among the others of its series.

    Attributes:
        instance: Index of the instance in what is planned.
        source: That instance.
        frame: One of its frames.
    """

    instance: int
    source: Instance
    frame: Frame

    @property
    def id(self) -> PlaneId:
        """What names this plane in a plan."""
        return self.instance, self.frame.index

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W), of one tile where the instance is a mosaic."""
        pixels = self.source.pixels
        if self.source.mosaic:
            return tile_shape(pixels.rows, pixels.columns, len(self.source.frames))
        return pixels.rows, pixels.columns

    @property
    def position(self) -> tuple[float, float, float]:
        """LPS millimetres; known after `check_plane`."""
        assert self.frame.position_mm is not None
        return self.frame.position_mm

    @property
    def orientation(self) -> tuple[float, ...]:
        """Six direction cosines; known after `check_plane`."""
        assert self.frame.orientation is not None
        return self.frame.orientation

    @property
    def spacing(self) -> tuple[float, float]:
        """Between rows and between columns; known after `check_plane`."""
        assert self.frame.spacing_mm is not None
        return self.frame.spacing_mm


@dataclass(frozen=True, eq=False)
class Axes:
    """Unit vectors of an image plane in LPS."""

    row: Vector
    column: Vector
    normal: Vector


def check_plane(plane: Plane) -> None:
    """Show that a plane's place in the patient is whole and possible.

    Raises:
        Skip: `MISSING_ATTRIBUTE` or `UNSUPPORTED_MULTIFRAME` where it has none, `LYING_GEOMETRY` where it can't be
            true, `UNSUPPORTED_PIXELS` where a slice has more than one value a pixel.
    """
    frame = plane.frame
    if plane.source.pixels.samples != 1:
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    if frame.position_mm is None or frame.orientation is None:
        single = plane.source.pixels.frames == 1 and not plane.source.mosaic
        raise Skip(Reason.MISSING_ATTRIBUTE if single else Reason.UNSUPPORTED_MULTIFRAME)
    if frame.spacing_mm is None:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    if len(frame.position_mm) != 3 or len(frame.orientation) != 6 or len(frame.spacing_mm) != 2:  # noqa: PLR2004 - a point, two directions, two distances
        raise Skip(Reason.MISSING_ATTRIBUTE)
    numbers = (*frame.position_mm, *frame.orientation, *frame.spacing_mm)
    if not all(map(math.isfinite, numbers)):
        raise Skip(Reason.LYING_GEOMETRY)
    far = max(map(abs, frame.position_mm)) > _MAX_COORDINATE_MM
    if far or not 0 < min(frame.spacing_mm) <= max(frame.spacing_mm) <= _MAX_SPACING_MM:
        raise Skip(Reason.LYING_GEOMETRY)
    axes_of(frame.orientation)


@lru_cache(maxsize=256)  # the slices of a series share theirs
def axes_of(orientation: tuple[float, ...]) -> Axes:
    """Return unit axes from six direction cosines; the arrays are shared, so not to be written to.

    Raises:
        Skip: `LYING_GEOMETRY` where they are not of unit length or not at right angles.
    """
    cosines = np.array(orientation, float) + 0.0  # equal keys must give equal bits: no zero keeps a sign
    row, column = cosines[:3], cosines[3:]
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    if max(abs(length - 1) for length in lengths) > _NORM_TOLERANCE:
        raise Skip(Reason.LYING_GEOMETRY)
    if abs(float(row @ column)) > _RIGHT_ANGLE_TOLERANCE:
        raise Skip(Reason.LYING_GEOMETRY)
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    return Axes(row, column, normal / np.linalg.norm(normal))


def along_normal(planes: Sequence[Plane], axes: Axes) -> npt.NDArray[np.float64]:
    """Return each position projected on the normal, in mm."""
    return np.array([plane.position for plane in planes]) @ axes.normal


def tolerance_mm(distance_mm: float) -> float:
    """Return how far a slice may lie from its place on the grid."""
    return max(TOLERANCE * abs(distance_mm), FLOOR_MM)
