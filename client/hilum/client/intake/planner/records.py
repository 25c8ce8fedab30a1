"""What the planner says of a series: which planes make which volume, where it lies, and how good it is.

Shapes: D slices, H rows, W columns. Axes are LPS: x to the patient's left, y to the back, z to the head.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hilum.client.intake.instance import Family
from hilum.client.intake.reasons import Reason

Affine = npt.NDArray[np.float64]
PlaneId = tuple[int, int]
"""Index of the instance in what was planned, and index of the frame in that instance."""

Coverage = Literal["contiguous", "overlapping", "gapped", "unknown"]
"""How the nominal slice thickness compares with the distance of the slices."""


@dataclass(frozen=True, eq=False)
class Tilt:
    """A stack whose slices shift sideways at each step, as with a tilted CT gantry.

    Attributes:
        angle_deg: Between the way from slice to slice and the slices' normal.
        shift_rows: Sideways way per slice, in rows.
        shift_columns: The same, in columns.
        sheared: (4, 4), array index (d, h, w, 1) of the stored slices to LPS millimetres.
        normal: The slices' unit normal.
        shape: (D, H, W) of the stored slices.
    """

    angle_deg: float
    shift_rows: float
    shift_columns: float
    sheared: Affine
    normal: tuple[float, float, float]
    shape: tuple[int, int, int]

    def told(self) -> dict[str, Any]:
        """Return all of it in what JSON knows; `tilt_told` reads it."""
        return {**asdict(self), "sheared": self.sheared.ravel().tolist()}


def tilt_told(told: Mapping[str, Any]) -> Tilt:
    """Return the tilt that `Tilt.told` gave."""
    sheared = np.array(told["sheared"], np.float64).reshape(4, 4)
    return Tilt(
        **{**told, "sheared": sheared, "normal": tuple(told["normal"]), "shape": tuple(told["shape"])}
    )


@dataclass(frozen=True)
class Quality:
    """What was found and done on the way to a volume.

    Attributes:
        planes: How many slices the volume is made of.
        dropped_duplicates: Planes set aside because another lies at the same place with the same contrast.
        tilt_deg: Angle between the stacking direction and the normal; resampled where the volume has a `tilt`.
        spacing_deviation_mm: How far a slice lies from its place on the regular grid, at most.
        coverage: Slice thickness against slice distance.
        thickness_mm: Nominal slice thickness, or None.
        frames_left_out: Frames of this volume's objects that are in no volume.
        run: Which regular run of an interrupted stack this is, from 1; 0 where the stack is whole.
        runs: How many regular runs the stack fell into.
        slices_left_out: Slices of the interrupted stack that are in no run.
        split_on: What told this volume from the others of the series.
    """

    planes: int
    dropped_duplicates: int
    tilt_deg: float
    spacing_deviation_mm: float
    coverage: Coverage
    thickness_mm: float | None
    frames_left_out: int
    run: int
    runs: int
    slices_left_out: int
    split_on: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PlannedVolume:
    """One volume of a series.

    Attributes:
        key: Which of the series' volumes this is, such as `echo=2,time=3`: ordinals only, the same for every order
            of the files, and free of identifiers. Empty where there is only one.
        planes: In the order in which they are stacked.
        shape: (D, H, W) of the result; with a tilt, larger in plane than the slices.
        spacing_mm: Between slices, rows and columns.
        affine: (4, 4), array index (d, h, w, 1) of the result to LPS millimetres.
        tilt: How to resample, or None.
        verify_equal: Pairs of planes that were taken for copies. Where the decoded pixels of one pair differ, the
            volume is to be refused as `MULTIPLE_TIMES`. The second of a pair is in no volume.
    """

    key: str
    family: Family
    planes: tuple[PlaneId, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: Affine
    tilt: Tilt | None
    verify_equal: tuple[tuple[PlaneId, PlaneId], ...]
    quality: Quality


@dataclass(frozen=True)
class PlannedImage:
    """A single image of a family that is not stacked."""

    family: Family
    plane: PlaneId


@dataclass(frozen=True)
class PlannedCine:
    """A run of frames over time at one place, in the order of the file."""

    family: Family
    planes: tuple[PlaneId, ...]
    frame_time_ms: float | None


@dataclass(frozen=True)
class SeriesPlan:
    """Every instance of a series is used by an item or refused, never both and never neither.

    Attributes:
        refused: Index of the instance to why it is in no item.
        copies: Pairs of instances with one SOP instance UID and one header, the second refused as a duplicate. Whether
            their pixels are equal is still to be seen; of a volume, `verify_equal` holds the pairs too.
    """

    volumes: tuple[PlannedVolume, ...]
    images: tuple[PlannedImage, ...] = ()
    cines: tuple[PlannedCine, ...] = ()
    refused: dict[int, Reason] = field(default_factory=dict)
    copies: tuple[tuple[int, int], ...] = ()
