"""From the slices of a series to a volume, or a reason why not.

Shapes: D slices, H rows, W columns. Axes are LPS: x to the patient's left, y to the back, z to the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hilum.client.intake.header import Header
from hilum.client.intake.reasons import Reason, Skip

MIN_SLICES = 4
_COSINE_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 0.01  # of the slice distance: what scanners' rounded positions stay within


@dataclass(frozen=True)
class Stack:
    """The order of a regular series and its place in the patient.

    Attributes:
        order: Indices of the slices along the normal.
        spacing_mm: Between slices, rows and columns.
        affine: (4, 4), array index (d, h, w, 1) to LPS millimetres.
    """

    order: tuple[int, ...]
    spacing_mm: tuple[float, float, float]
    affine: npt.NDArray[np.float64]


def plan_stack(headers: Sequence[Header]) -> Stack:
    """Order slices by their positions along the common normal (PS3.3 section C.7.6.2.1.1).

    Instance numbers are not asked: they lie.

    Raises:
        Skip: If the slices do not make one regular, upright stack.
    """
    if len(headers) < MIN_SLICES:
        raise Skip(Reason.TOO_FEW_SLICES)
    first = headers[0]
    if first.orientation is None or first.position_mm is None or first.spacing_mm is None:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    row, column = _axes(first.orientation)
    positions = np.array([_position_in(header, first) for header in headers])
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    distance = float(np.median(gaps))
    if gaps.min() <= _SPACING_TOLERANCE * max(distance, 1e-6):
        raise Skip(Reason.DUPLICATE_POSITION)
    if np.abs(gaps - distance).max() > _SPACING_TOLERANCE * distance:
        raise Skip(Reason.IRREGULAR_SPACING)
    drift = positions - positions[order[0]] - np.outer(along - along[order[0]], normal)
    if np.linalg.norm(drift, axis=1).max() > _SPACING_TOLERANCE * distance:
        raise Skip(Reason.TILTED)
    distance = float((along[order[-1]] - along[order[0]]) / (len(headers) - 1))
    row_mm, column_mm = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = normal * distance
    affine[:3, 1] = column * row_mm
    affine[:3, 2] = row * column_mm
    affine[:3, 3] = positions[order[0]]
    return Stack(tuple(int(index) for index in order), (distance, row_mm, column_mm), affine)


def _axes(orientation: tuple[float, ...]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > _COSINE_TOLERANCE:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return row / lengths[0], column / lengths[1]


def _position_in(header: Header, first: Header) -> tuple[float, float, float]:
    """The slice's position, once it is shown to belong to the first slice's stack."""
    if header.orientation is None or header.position_mm is None or header.spacing_mm is None:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    assert first.orientation is not None
    assert first.spacing_mm is not None
    same = (
        (header.rows, header.columns) == (first.rows, first.columns)
        and np.allclose(header.orientation, first.orientation, atol=_COSINE_TOLERANCE)
        and np.allclose(header.spacing_mm, first.spacing_mm, rtol=_SPACING_TOLERANCE)
        and header.family == first.family
        and header.inverted == first.inverted
    )
    if not same:
        raise Skip(Reason.MIXED_GEOMETRY)
    return header.position_mm


def compact(volume: npt.NDArray[np.float32]) -> npt.NDArray[np.int16] | npt.NDArray[np.float32]:
    """Store whole numbers in the range of int16 as such; anything else stays float32. No value changes."""
    whole = np.rint(volume)
    limits = np.iinfo(np.int16)
    if np.array_equal(whole, volume) and volume.min() >= limits.min and volume.max() <= limits.max:
        return whole.astype(np.int16)
    return volume
