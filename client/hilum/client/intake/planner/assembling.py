"""From decoded planes to the planned volume.

Shapes: D slices, H rows, W columns.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hilum.client.intake.planner.records import Affine, PlaneId, PlannedVolume
from hilum.client.intake.planner.tilt import shear_resample
from hilum.client.intake.reasons import Reason, Skip

Values = npt.NDArray[np.float32] | npt.NDArray[np.int16]
GetPlane = Callable[[int, int], Values]


def assemble(
    volume: PlannedVolume, get_plane: GetPlane, background: float | None = None
) -> tuple[Values, Affine]:
    """Stack the planes of one planned volume, and bring it upright where it is tilted.

    Args:
        volume: From `plan_series`.
        get_plane: Gives the (H, W) values of a frame from the index of its instance and its own; of a mosaic, one
            tile.
        background: Value of what a tilted stack did not measure; the volume's minimum where None.

    Returns:
        (D, H, W) of the planned shape, and the planned affine. Int16 where all planes are and nothing is resampled, else
        float32.

    Raises:
        Skip: `MULTIPLE_TIMES` where planes that were taken for copies differ; `MIXED_GEOMETRY` where a decoded plane
            has another size than its header said.
    """
    verify_copies(volume, get_plane)
    planes = [get_plane(*plane) for plane in volume.planes]
    if len({plane.shape for plane in planes}) != 1:
        raise Skip(Reason.MIXED_GEOMETRY)
    together = np.stack(planes)
    if together.dtype == np.int16:
        return upright(volume, together.astype(np.int16, copy=False), background)
    return upright(volume, together.astype(np.float32, copy=False), background)


class CopiesDiffer(Skip):
    """Planes that were taken for copies are none: several images lie at one place.

    Attributes:
        pairs: All that differ.
    """

    def __init__(self, pairs: tuple[tuple[PlaneId, PlaneId], ...]) -> None:
        super().__init__(Reason.MULTIPLE_TIMES)
        self.pairs = pairs


def verify_copies(volume: PlannedVolume, get_plane: GetPlane) -> None:
    """Look whether planes that were taken for copies are.

    Raises:
        CopiesDiffer: Where some are not.
    """
    differing = tuple(
        (kept, dropped)
        for kept, dropped in volume.verify_equal
        if not np.array_equal(get_plane(*kept), get_plane(*dropped), equal_nan=True)
    )
    if differing:
        raise CopiesDiffer(differing)


def upright(volume: PlannedVolume, stacked: Values, background: float | None) -> tuple[Values, Affine]:
    """Bring the stacked planes of a volume upright where they are tilted; see `assemble`.

    Raises:
        Skip: `MIXED_GEOMETRY` where they have not the planned shape.
    """
    affine = volume.affine
    if volume.tilt is not None:
        stacked, affine = shear_resample(stacked.astype(np.float32, copy=False), volume.tilt, background)
    if stacked.shape != volume.shape:
        raise Skip(Reason.MIXED_GEOMETRY)
    return stacked, affine
