"""What a reader of annotations gives: masks and boxes on items.

Shapes: D slices, H rows, W columns.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hilum.client.intake.reasons import Reason
from hilum.client.state.catalogue import Annotation, Source

Voxels = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Mask:
    """The voxels of one structure, cropped to the box around them.

    Attributes:
        voxels: (D, H, W), or (H, W) for an image; True inside the structure.
        start: The index in the item of `voxels`' first element.
    """

    item_key: str
    label: str
    source: Source
    voxels: Voxels = field(repr=False)
    start: tuple[int, ...]


@dataclass(frozen=True)
class Box:
    """A box on an image, in pixels: (0, 0) is the upper left corner of the first pixel, x runs along a row."""

    item_key: str
    label: str
    source: Source
    x: float
    y: float
    width: float
    height: float


Mark = Mask | Box | Reason
"""One structure or box as it was found: taken, or why not."""


def cropped(item_key: str, label: str, source: Source, voxels: Voxels) -> Mask | Reason:
    """Return a mask from voxels on the item's whole grid; `EMPTY_ANNOTATION` where none is set."""
    if not voxels.any():
        return Reason.EMPTY_ANNOTATION
    bounds = []
    for axis in range(voxels.ndim):
        rest = tuple(other for other in range(voxels.ndim) if other != axis)
        inside = np.flatnonzero(voxels.any(axis=rest))
        bounds.append((int(inside[0]), int(inside[-1]) + 1))
    region = tuple(slice(first, end) for first, end in bounds)
    return Mask(item_key, label, source, voxels[region].copy(), tuple(first for first, _ in bounds))


def on_grid(annotation: Annotation, stored: Voxels, shape: tuple[int, ...]) -> Voxels:
    """Return the mask on its item's whole grid.

    Args:
        annotation: A row of kind `mask`.
        stored: The array that `content_sha256` names.
        shape: Of the item, without its colour axis.
    """
    voxels = np.zeros(shape, bool)
    starts = (int(start) for start in annotation.place)
    region = tuple(slice(start, start + size) for start, size in zip(starts, stored.shape, strict=True))
    voxels[region] = stored
    return voxels
