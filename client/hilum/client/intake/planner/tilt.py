"""Sheared stacks: recognised by how the positions move, never by the gantry's own word (0018,1120).

Shapes: D slices, H rows, W columns.
"""

import math

import numpy as np
import numpy.typing as npt

from hilum.client.intake.planner.ordering import Run
from hilum.client.intake.planner.records import Affine, Tilt

Volume = npt.NDArray[np.float32]

_MAX_GROWTH = 8
UPRIGHT_DEG = 0.1
"""Below this a stack counts as upright: cosines rounded to three decimals look this much tilted."""


def sheared_affine(run: Run) -> Affine:
    """(4, 4), array index (d, h, w, 1) of the stored slices to LPS millimetres; its first column is the true step."""
    row_mm, column_mm = run.planes[0].spacing
    affine = np.eye(4)
    affine[:3, 0] = run.step_mm
    affine[:3, 1] = run.axes.column * row_mm
    affine[:3, 2] = run.axes.row * column_mm
    affine[:3, 3] = run.planes[0].position
    return affine


def tilt_of(run: Run) -> Tilt | None:
    """Return how the slices of a run shift sideways, or None where they do not."""
    if run.tilt_deg <= UPRIGHT_DEG:
        return None
    row_mm, column_mm = run.planes[0].spacing
    return Tilt(
        angle_deg=run.tilt_deg,
        shift_rows=float(run.step_mm @ run.axes.column) / row_mm,
        shift_columns=float(run.step_mm @ run.axes.row) / column_mm,
        sheared=sheared_affine(run),
        normal=(float(run.axes.normal[0]), float(run.axes.normal[1]), float(run.axes.normal[2])),
        shape=(len(run.planes), *run.planes[0].shape),
    )


def upright_grid(shape: tuple[int, int, int], tilt: Tilt) -> tuple[tuple[int, int, int], Affine]:
    """Shape and affine of the upright grid that holds every slice of a tilted stack; no voxel is lost."""
    depth, rows, columns = shape
    whole_rows, whole_columns = (depth - 1) * tilt.shift_rows, (depth - 1) * tilt.shift_columns
    grown = (depth, rows + _whole(abs(whole_rows)), columns + _whole(abs(whole_columns)))
    affine = tilt.sheared.copy()
    normal = np.array(tilt.normal)
    affine[:3, 0] = normal * float(tilt.sheared[:3, 0] @ normal)
    affine[:3, 3] += min(whole_rows, 0.0) * affine[:3, 1] + min(whole_columns, 0.0) * affine[:3, 2]
    return grown, affine


def fits_upright(shape: tuple[int, int, int], tilt: Tilt) -> bool:
    """Tell whether the upright grid stays within a few times the voxels that were measured.

    A real gantry does not even double them; a forged pixel spacing of a nanometre asks for terabytes.
    """
    grown, _affine = upright_grid(shape, tilt)
    return math.prod(grown) <= _MAX_GROWTH * math.prod(shape)


def _whole(extent: float) -> int:
    """Whole voxels that cover an extent; a rounding error is not worth a voxel."""
    return int(np.ceil(extent - 1e-6))


def shear_resample(volume: Volume, tilt: Tilt, background: float | None = None) -> tuple[Volume, Affine]:
    """Bring a tilted stack upright: each slice is moved within its plane, by linear interpolation.

    Along the normal nothing is interpolated. Outside of what a slice covers stands the background.

    Args:
        volume: (D, H, W), the slices as stored.
        tilt: From the plan.
        background: Value of what was not measured; the volume's minimum where None.

    Returns:
        (D, H', W') with H' >= H and W' >= W, and its affine: array index (d, h, w, 1) to LPS millimetres.
    """
    depth, rows, columns = volume.shape
    grown, affine = upright_grid((depth, rows, columns), tilt)
    fill = np.float32(volume.min() if background is None else background)
    out = np.full(grown, fill, np.float32)
    first_row = min((depth - 1) * tilt.shift_rows, 0.0)
    first_column = min((depth - 1) * tilt.shift_columns, 0.0)
    for k in range(depth):
        plane, inside_rows = _shifted(volume[k], grown[1], first_row - k * tilt.shift_rows)
        plane, inside_columns = _shifted(plane.T, grown[2], first_column - k * tilt.shift_columns)
        out[k] = np.where(inside_rows[:, None] & inside_columns[None, :], plane.T, fill)
    return out, affine


def shear_mask(mask: npt.NDArray[np.bool_], tilt: Tilt) -> npt.NDArray[np.bool_]:
    """Bring a mask on the slices of a tilted stack upright with them: a voxel that it covers by half or more is in it.

    Args:
        mask: (D, H, W), of the shape that the tilt names.
        tilt: Of the volume.

    Returns:
        On the grid of `upright_grid`.
    """
    share, _affine = shear_resample(mask.astype(np.float32), tilt, 0.0)
    return np.asarray(share >= 0.5)  # noqa: PLR2004 - half


def _shifted(
    plane: npt.NDArray[np.float32], length: int, offset: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Rows `offset`, `offset + 1`, ... of a plane, `length` of them, and which of them lie inside it."""
    source = np.arange(length) + offset
    nearest = np.rint(source)
    source = np.where(np.abs(source - nearest) < 1e-6, nearest, source)  # noqa: PLR2004 - a shift by whole rows stays exact
    last = len(plane) - 1
    inside = (source >= 0) & (source <= last)
    low = np.clip(np.floor(source).astype(int), 0, max(last - 1, 0))
    weight = np.where(inside, source - low, 0.0).astype(np.float32)[:, None]
    high = np.minimum(low + 1, last)
    return plane[low] * (1 - weight) + plane[high] * weight, inside
