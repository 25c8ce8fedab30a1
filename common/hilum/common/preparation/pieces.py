"""Pieces of one volume: where they may begin, and cutting them out.

Shapes: D slices, H rows, W columns; k pieces or cells. A cell is a small block of a volume that is known to show something or
not. Origins may be negative: a volume that is smaller than a piece lies in its middle.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hilum.common.config.data import DataSection

Box = tuple[int, int, int]
Origins = npt.NDArray[np.int64]
Cells = npt.NDArray[np.int32]
Values = npt.NDArray[np.uint16]

MAX_PIECES = 64
"""Of a volume, when all of it is to be seen."""
_SHOWS = 0.25  # of what the fullest piece shows: below, a piece shows too little to stand for the volume
_CELL = 8  # voxels


def box_of(edges: Sequence[int]) -> Box:
    """Return three edges as such."""
    depth, height, width = edges
    return depth, height, width


@dataclass(frozen=True)
class Geometry:
    """What pieces a study takes of volumes, in voxels as they are packed.

    Attributes:
        block: What views are made of.
        seen: What the encoder sees when all of a volume is to be seen.
        cell: The edges of a cell.
        flat: Pieces are slices, and lose their first axis.
    """

    block: Box
    seen: Box
    cell: Box
    flat: bool

    @classmethod
    def of(cls, data: DataSection) -> "Geometry":
        """Return that of a study, whose cut is patches or slices."""
        if data.cut == "slices":
            height, width = data.block_size
            return cls((1, height, width), (1, height, width), (1, _CELL, _CELL), flat=True)
        return cls(box_of(data.block_size), box_of(data.view_size), (_CELL,) * 3, flat=False)


def cut_into(piece: Values, volume: Values, origin: Sequence[int]) -> None:
    """Fill a piece from a volume (D, H, W); outside of the volume is the lowest value that the piece has."""
    place = tuple(
        slice(max(begin, 0), min(begin + edge, whole))
        for begin, edge, whole in zip(origin, piece.shape, volume.shape, strict=True)
    )
    inside = volume[place]
    if inside.shape == piece.shape:
        piece[:] = inside
        return
    piece[:] = inside.min()
    piece[
        tuple(slice(part.start - begin, part.stop - begin) for part, begin in zip(place, origin, strict=True))
    ] = inside


def cut_out(volume: Values, origins: Origins, size: Box) -> Values:
    """Return pieces (k, *size) of one volume; see `cut_into`."""
    pieces = np.empty((len(origins), *size), np.uint16)
    for piece, origin in zip(pieces, origins.tolist(), strict=True):
        cut_into(piece, volume, origin)
    return pieces


def grid_shape(shape: Box, cell: Box) -> Box:
    """Return how many cells a volume has along each axis; the last ones may be cut off."""
    d, h, w = (-(-whole // edge) for whole, edge in zip(shape, cell, strict=True))
    return d, h, w


def random_origins(shape: Box, cells: Cells, cell: Box, size: Box, drawn: npt.NDArray[np.float64]) -> Origins:
    """Place pieces about cells that show something: the cell lies in the middle half of the piece, or as near as the edge lets it.

    Args:
        shape: Of the volume.
        cells: (k,) C-order indices of the cells that show something; none, where the volume shows nothing at all.
        cell: Edges of a cell.
        size: Of the pieces.
        drawn: (n, 7) uniform in [0, 1): which cell, where in it, and where it lies in the piece.

    Returns:
        (n, 3).
    """
    grid = grid_shape(shape, cell)
    number = (drawn[:, 0] * (len(cells) or np.prod(grid))).astype(np.int64)
    chosen = cells[number] if len(cells) else number
    place = np.stack(np.unravel_index(chosen, grid), axis=1) * cell + drawn[:, 1:4] * cell
    room = np.array(shape) - size
    first = (place - 0.75 * np.array(size)).clip(0, room.clip(0))
    last = (place - 0.25 * np.array(size)).clip(0, room.clip(0))
    origin = np.rint(first + drawn[:, 4:7] * (last - first)).astype(np.int64)
    placed: Origins = np.where(room < 0, room // 2, origin)
    return placed


def covering_origins(shape: Box, cells: Cells, cell: Box, size: Box) -> Origins:
    """Lay a grid of pieces over a volume, and keep those that show something.

    Along each axis there are as many as it takes, evenly spaced from edge to edge; they overlap where they don't come out even.
    Of more than `MAX_PIECES` evenly many are left out.

    Returns:
        (k, 3), one at least.
    """
    starts = []
    for whole, edge in zip(shape, size, strict=True):
        room = whole - edge
        count = -(-whole // edge)
        starts.append([room // 2] if room <= 0 else np.rint(np.linspace(0, room, count)).astype(int).tolist())
    origins = np.array(list(itertools.product(*starts)), np.int64)
    grid = grid_shape(shape, cell)
    shows = np.zeros(grid, bool)
    shows.ravel()[cells] = True
    shares = np.array([_share_of(shows, origin, cell, size) for origin in origins])
    kept: Origins = origins[shares >= _SHOWS * shares.max()]
    if len(kept) > MAX_PIECES:
        kept = kept[np.linspace(0, len(kept) - 1, MAX_PIECES).round().astype(int)]
    return kept


def _share_of(shows: npt.NDArray[np.bool_], origin: Origins, cell: Box, size: Box) -> float:
    first = np.maximum(origin, 0) // cell
    last = -(-(origin + size) // np.array(cell))
    return float(shows[tuple(slice(begin, end) for begin, end in zip(first, last, strict=True))].mean())
