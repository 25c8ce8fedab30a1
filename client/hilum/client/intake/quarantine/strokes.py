"""Strokes that may be glyphs: thin, of one intensity, with steep edges.

An image is filtered in strips of rows and only the pixels that stand out are kept, so what a search costs beyond the
image itself grows with what may be ink.

Shapes: H rows, W columns. Lengths are pixels of the plane that is searched.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Plane = npt.NDArray[np.float32]
_Whole = npt.NDArray[np.int32]

STROKE = 9  # strokes are thinner than this
HEIGHT = (5, 40)  # of a glyph, first and last
ASPECT = 1.8  # a glyph is not wider than this many heights

_MIN_AREA = 5
_MAX_BLOBS = 6_000  # of the strongest contrast; more than that is noise
_STRIP_PIXELS = 1 << 18  # a strip's filters stay in the processor's cache
_LARGE_PX = 1 << 23
_MAX_INK = 0.15  # of a strip of a large plane: print covers less, and among more only the strongest is kept


@dataclass(frozen=True)
class Blobs:
    """Strokes that may be glyphs: one entry each, sorted by `left`."""

    top: npt.NDArray[np.float64]
    bottom: npt.NDArray[np.float64]
    left: npt.NDArray[np.float64]
    right: npt.NDArray[np.float64]
    ink: npt.NDArray[np.float64]
    contrast: npt.NDArray[np.float64]
    flat: npt.NDArray[np.float64]
    steep: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.top)

    def take(self, which: npt.NDArray[np.generic]) -> "Blobs":
        """Return some of them."""
        return Blobs(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def turned(self) -> "Blobs":
        """Return the same with rows and columns exchanged, for text that runs along columns."""
        turned = Blobs(
            self.left, self.right, self.top, self.bottom, self.ink, self.contrast, self.flat, self.steep
        )
        return turned.take(np.argsort(turned.left, kind="stable"))

    @property
    def height(self) -> npt.NDArray[np.float64]:
        """Of each."""
        return self.bottom - self.top


@dataclass(frozen=True)
class Ink:
    """The pixels of a plane that stand out of what lies around them, in the order of rows and columns.

    Attributes:
        place: Row times `stride` plus column; pixels at the ends of two rows so never follow one another.
        relief: How far each stands out.
        value: Of the plane.
        slope: How much the plane changes around it.
    """

    place: _Whole
    relief: Plane
    value: Plane
    slope: Plane
    stride: int

    def take(self, which: npt.NDArray[np.bool_]) -> "Ink":
        """Return some of the pixels."""
        return Ink(self.place[which], self.relief[which], self.value[which], self.slope[which], self.stride)


def _find_ink(plane: Plane, reach: int, contrast: float, *, dark: bool) -> Ink:
    """Return the pixels that stand out by more than a contrast.

    Args:
        plane: (H, W), 0 to 255.
        reach: Pixels over which an edge climbs; odd.
        contrast: Of 255.
        dark: Whether to look for dark ink on bright ground, as bright ink in the plane's negative.
    """
    rows, columns = plane.shape
    height = max(_STRIP_PIXELS // columns, STROKE)
    parts = [_ink_of(plane, first, height, reach, contrast, dark=dark) for first in range(0, rows, height)]
    place, relief, value, slope = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Ink(place, relief, value, slope, columns + 1)


def _ink_of(
    plane: Plane, first: int, height: int, reach: int, contrast: float, *, dark: bool
) -> tuple[_Whole, Plane, Plane, Plane]:
    """Of one strip of rows."""
    values, halo = _strip(plane, first, height), STROKE - 1
    if dark:
        values = 255 - values
    inner = values[halo:-halo, halo:-halo]
    eroded = _windowed(np.minimum, values, STROKE)
    relief = inner - _windowed(np.maximum, eroded, STROKE)
    cut = slice(halo - reach // 2, reach // 2 - halo)
    near = values[cut, cut]
    slope = _windowed(np.maximum, near, reach) - _windowed(np.minimum, near, reach)
    standing = relief > contrast
    most = round(_MAX_INK * relief.size)
    if plane.size > _LARGE_PX and np.count_nonzero(standing) > most:
        standing = relief >= np.partition(relief, -most, axis=None)[-most]  # all of equal ones: print is even
    row, column = np.nonzero(standing)
    place = ((row + first) * (plane.shape[1] + 1) + column).astype(np.int32)
    return place, relief[row, column], inner[row, column], slope[row, column]


def _strip(plane: Plane, first: int, height: int) -> Plane:
    """Return some rows with what lies around them; the plane's edge is repeated outside."""
    halo, (rows, columns) = STROKE - 1, plane.shape
    end = min(first + height, rows)
    row = np.arange(first - halo, end + halo).clip(0, rows - 1)
    wide: Plane = np.empty((len(row), columns + 2 * halo), np.float32)
    wide[:, halo:-halo] = plane[row]
    wide[:, :halo], wide[:, -halo:] = wide[:, [halo]], wide[:, [-halo - 1]]
    return wide


def _windowed(pick: Callable[[Plane, Plane], Plane], values: Plane, width: int) -> Plane:
    """Return the least or greatest in every square window that lies within the array, by windows of twice the width."""
    for axis in (0, 1):
        of_axis = np.moveaxis(values, axis, 0)
        covered = 1
        while covered < width:
            step = min(covered, width - covered)
            of_axis = pick(of_axis[:-step], of_axis[step:])
            covered += step
        values = np.moveaxis(of_axis, 0, axis)
    return values


def _find_blobs(ink: Ink) -> Blobs:
    """Return connected strokes of the size of a glyph."""
    of_pixel, count = _components(ink.place, ink.stride)
    area = np.bincount(of_pixel, minlength=count)
    enough = area >= _MIN_AREA
    ink, of_pixel = ink.take(enough[of_pixel]), (np.cumsum(enough) - 1)[of_pixel[enough[of_pixel]]]
    area = area[enough]
    row, column = np.divmod(ink.place, ink.stride)
    top, bottom, left, right, peak, brightest = (np.zeros(len(area)) for _ in range(6))
    top[of_pixel[::-1]], bottom[of_pixel] = row[::-1], row + 1  # rows only grow
    left[:] = ink.stride
    np.minimum.at(left, of_pixel, column.astype(float))
    np.maximum.at(right, of_pixel, column + 1.0)
    np.maximum.at(peak, of_pixel, ink.relief.astype(float))
    np.maximum.at(brightest, of_pixel, ink.value.astype(float))
    longer = np.maximum(bottom - top, right - left)
    flat = np.bincount(of_pixel, ink.relief > 0.8 * peak[of_pixel].astype(np.float32), len(area)) / area
    steep = np.bincount(of_pixel, ink.slope, len(area)) / (area * peak)
    kept = np.flatnonzero((longer >= HEIGHT[0]) & (longer <= ASPECT * HEIGHT[1]))
    if len(kept) > _MAX_BLOBS:
        kept = kept[np.argsort(-peak[kept])[:_MAX_BLOBS]]
    blobs = Blobs(top, bottom, left, right, brightest, peak, flat, steep)
    return blobs.take(kept[np.argsort(left[kept], kind="stable")])


def _components(place: _Whole, stride: int) -> tuple[_Whole, int]:
    """For each pixel the number of its connected part, counted from the upper left; diagonal neighbours touch.

    Runs of pixels along rows are joined instead of pixels.
    """
    begins = np.concatenate([[True], np.diff(place) != 1])
    first = place[begins]
    last = place[np.concatenate([np.flatnonzero(begins)[1:] - 1, [len(place) - 1]])]
    # The runs of the row above that reach under a run, one pixel further on either side.
    low = np.searchsorted(last, first - stride - 1, side="left")
    high = np.searchsorted(first, last - stride + 1, side="right")
    touching = np.maximum(high - low, 0)
    starts = np.concatenate([[0], np.cumsum(touching)]).astype(np.int32)
    above = np.arange(starts[-1], dtype=np.int32) - np.repeat(starts[:-1] - low.astype(np.int32), touching)
    links = csr_array((np.ones(len(above), np.int8), above, starts), shape=(len(first), len(first)))
    count, of_run = connected_components(links, directed=False)
    return np.asarray(of_run)[np.cumsum(begins) - 1], int(count)


def find_strokes(plane: Plane, reach: int, contrasts: Sequence[float]) -> Iterator[Blobs]:
    """Return the strokes of a plane, in bright and in dark ink, at one contrast after the other.

    Args:
        plane: (H, W), 0 to 255.
        reach: Pixels over which an edge climbs; odd.
        contrasts: How far strokes stand out of what lies around them, of 255, rising.
    """
    for dark in (False, True):
        ink = _find_ink(plane, reach, contrasts[0], dark=dark)
        found = -1
        for contrast in contrasts:
            ink = ink.take(ink.relief > contrast)
            if len(ink.place) not in {0, found}:  # the same pixels make the same strokes again
                yield _find_blobs(ink)
            found = len(ink.place)
