"""What files of annotations hold: label volumes, segmentations and structure sets, before any of it belongs to an image.

Shapes: D slices, H rows, W columns; F frames of an object, P points.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from hilum.client.intake.formats.ipc import Array
from hilum.client.intake.formats.naming import Code
from hilum.client.intake.reasons import Reason

FARTHEST_MM = 1e6
"""No scanner is a kilometre long; not a number is not less either."""
MIN_POINTS, MAX_POINTS = 3, 1_000_000
"""Of a contour: fewer enclose nothing, and no outline has more."""


@dataclass(frozen=True)
class LabelsRead:
    """One label volume.

    Attributes:
        shape: D, H, W.
        affine: Of 16 numbers, row by row: array index (d, h, w, 1) to LPS millimetres.
        values: That its voxels have, rising, without 0; None where these are not labels.
        numbers: (D, H, W), 0 or from 1 the place in `values`; None where there are none.
    """

    shape: tuple[int, int, int]
    affine: tuple[float, ...]
    values: tuple[int, ...] | None
    numbers: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | None = field(repr=False)


@dataclass(frozen=True)
class Segment:
    """What an object says of one segment."""

    number: int
    text: str = field(repr=False)
    code: Code | None


@dataclass(frozen=True)
class PlanePlace:
    """Where one frame lies; None where the object does not say, or not in numbers.

    Attributes:
        segment: That it shows, or None in a label map.
        position_mm: LPS position of the first voxel's centre.
        gap_mm: Distance to the next plane.
    """

    segment: int | None
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    gap_mm: float | None


@dataclass(frozen=True)
class SegRead:
    """One DICOM segmentation.

    Attributes:
        shape: H, W of a frame.
        segments: All but the background.
        sources: SOP instance UIDs that the frames were drawn on; `instances`, and series instance UIDs in `series`:
            what the object refers to as a whole.
        undecodable: Frames, from 0, whose pixels could not be decoded.
        planes: One a frame.
        frames: (F, H * W / 8), the bits of frames that show one segment each; or (F, H, W), the numbers of a label map,
            and 1 in those of its frames that name a segment.
    """

    shape: tuple[int, int]
    source: Literal["seg", "seg_fractional"]
    segments: tuple[Segment, ...] = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)
    instances: tuple[str, ...] = field(repr=False)
    series: tuple[str, ...] = field(repr=False)
    undecodable: frozenset[int]
    planes: tuple[PlanePlace, ...]
    frames: Array = field(repr=False)

    def shown(self, number: int, frame: int) -> npt.NDArray[np.bool_]:
        """(H, W), True where a frame shows a segment."""
        stored = self.frames[frame]
        if stored.ndim > 1:
            return np.asarray(stored == (number if self.planes[frame].segment is None else 1))
        height, width = self.shape
        return np.unpackbits(stored, count=height * width).reshape(self.shape).view(np.bool_)


@dataclass(frozen=True)
class Region:
    """One region of interest.

    Attributes:
        contours: Each (P, 3), LPS millimetres.
        sources: SOP instance UIDs of the images that its contours were drawn on.
    """

    name: str = field(repr=False)
    code: Code | None
    contours: tuple[npt.NDArray[np.float64], ...] = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class StructuresRead:
    """One structure set: its regions, or why one is not taken, and the series that it refers to."""

    regions: tuple[Region | Reason, ...]
    series: tuple[str, ...] = field(repr=False)
