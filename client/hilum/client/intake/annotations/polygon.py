"""Filling polygons on a pixel grid.

Points are (row, column) in pixels, with pixel centres at whole numbers.
"""

import numpy as np
import numpy.typing as npt

from hilum.client.intake.reasons import Reason, Skip

Points = npt.NDArray[np.float64]
_MAX_CROSSINGS = 2_000_000
_SNAP = 1e4  # points closer than this to one another, in parts of a pixel, are taken to be the same


def filled(points: Points, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Pixels whose centre lies inside a closed polygon, by the even-odd rule.

    A centre on the edge belongs to the side of larger rows and columns, so two polygons that share an edge share no
    pixel. The two runs of a keyhole's channel cancel.

    Args:
        points: (N, 2); the last joins the first.
        shape: (H, W).

    Raises:
        Skip: If it runs to and fro over the image more often than any outline would.
    """
    points = np.rint(points * _SNAP) / _SNAP
    ends = np.roll(points, -1, axis=0)
    # Both runs of a channel are computed from the same end, so that they cross a row at the very same place.
    upward = ends[:, 0] < points[:, 0]
    low, high = np.where(upward[:, None], ends, points), np.where(upward[:, None], points, ends)
    first = np.clip(np.ceil(low[:, 0]), 0, shape[0]).astype(np.int64)
    last = np.clip(np.ceil(high[:, 0]), 0, shape[0]).astype(np.int64)
    counts = last - first
    if counts.sum() > _MAX_CROSSINGS:
        raise Skip(Reason.TOO_LARGE)
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (high[edge, 1] - low[edge, 1]) / (high[edge, 0] - low[edge, 0])
    crossing = low[edge, 1] + (row - low[edge, 0]) * slope
    column = np.clip(np.ceil(np.rint(crossing * _SNAP) / _SNAP), 0, shape[1]).astype(np.int64)
    toggles = np.zeros((shape[0], shape[1] + 1), np.int64)
    np.add.at(toggles, (row, column), 1)
    return np.asarray(np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1)
