"""Finds text that is burned into the pixels of an image.

Text is looked for as what it is drawn as: thin strokes of one intensity with steep edges, forming glyphs of about one
height that stand side by side. Bright and dark ink, grey and colour, several contrasts and three scales are tried, along
rows and along columns. A miss would leak and a false alarm costs a look, so the limits lean towards alarm. Nothing is
read: only whether there may be text, and where.

Shapes: H rows, W columns. Lengths are pixels of the scale at which a glyph is found.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from hilum.client.intake.quarantine.strokes import ASPECT, HEIGHT, Blobs, Plane, find_strokes

_Whole = npt.NDArray[np.int64]

_MAGNIFIED_PX = 2_000_000  # images up to this size are also searched magnified, for the smallest print
_CONTRASTS = (20.0, 45.0, 80.0, 130.0)  # of 255: how far strokes stand out of what lies around them
_MIN_GLYPHS = 3  # fewer make no name, number or date
_SAME_INK = 30.0  # of 255: the print of one line differs by less
_COLOUR_AXES = 3
_COLOURED = 0.15  # of the range of values: less difference between channels is a tint


@dataclass(frozen=True)
class _Limits:
    """What a line of glyphs has that speckle and noise have not, as measured on drawn texts and on real images.

    Attributes:
        glyphs: At least so many.
        steepness: Of the contrast, within one pixel; speckle climbs slower.
        flatness: Share of a glyph near its own peak; speckle comes to a point.
        spread: Standard deviation over mean, at most, of the glyphs' contrasts; that of their heights may be twice it.
    """

    glyphs: int
    steepness: float
    flatness: float
    spread: float = 1.0


# By scale: text along rows, then text along columns, which ultrasound's layers imitate and which is seldom.
_LIMITS = {
    1.0: (_Limits(3, 0.65, 0.2), _Limits(5, 0.75, 0.25, 0.2)),
    0.5: (_Limits(3, 0.7, 0.2), None),
    2.0: (_Limits(4, 0.7, 0.25, 0.2), None),
}


@dataclass(frozen=True)
class TextBox:
    """Where text may stand, in pixels of the image; the ends lie outside."""

    row: int
    column: int
    row_end: int
    column_end: int


def find_text(image: npt.NDArray[np.generic]) -> list[TextBox]:
    """Return where an image may hold text.

    Args:
        image: (H, W) or (H, W, 3), any type; values as stored or as displayed.

    Returns:
        Boxes, which may overlap; empty where no text was found.
    """
    return list(_search(image))


def has_text(image: npt.NDArray[np.generic]) -> bool:
    """Tell whether an image may hold text: (H, W) or (H, W, 3)."""
    return next(_search(image), None) is not None


def _search(image: npt.NDArray[np.generic]) -> Iterator[TextBox]:
    for plane in _planes(image):
        for scale in _LIMITS:
            if scale > 1 and plane.size > _MAGNIFIED_PX:
                continue
            for box in _boxes(_scaled(plane, scale), scale):
                yield TextBox(*(round(edge / scale) for edge in box))


def _planes(image: npt.NDArray[np.generic]) -> Iterator[Plane]:
    """Return the brightness; of a colour image with colours in it, their strength too."""
    if image.ndim < _COLOUR_AXES:
        yield _stretched(np.array(image, np.float32))
        return
    red, green, blue = (image[..., channel] for channel in range(3))
    brightness = np.add(red, green, dtype=np.float32)
    brightness += blue
    brightness /= 3
    yield _stretched(brightness)
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    strength = np.subtract(most, least, dtype=np.float32)
    if strength.max() > _COLOURED * (float(most.max()) - float(least.min())):
        yield _stretched(strength)


def _stretched(values: Plane) -> Plane:
    """To 0..255, without the few brightest and darkest pixels; in place."""
    low, high = np.percentile(values, (0.05, 99.95))
    if low == high:
        low, high = values.min(), values.max()
    values -= np.float32(low)
    values *= np.float32(255 / max(float(high - low), 1e-6))
    return values.clip(0, 255, out=values)


def _scaled(plane: Plane, scale: float) -> Plane:
    if scale == 1:
        return plane
    if scale > 1:
        magnified: Plane = ndimage.zoom(plane, scale, order=1)
        return magnified
    tile = round(1 / scale)
    rows, columns = (edge // tile * tile for edge in plane.shape)
    mean: Plane = plane[:rows, :columns].reshape(rows // tile, tile, columns // tile, tile).mean(axis=(1, 3))
    return mean


def _boxes(plane: Plane, scale: float) -> Iterator[tuple[float, float, float, float]]:
    """Text in bright and in dark ink."""
    along_rows, along_columns = _LIMITS[scale]
    reach = 5 if scale > 1 else 3  # pixels over which an edge climbs
    if min(plane.shape) < HEIGHT[0]:
        return
    for blobs in find_strokes(plane, reach, _CONTRASTS):
        for line in _lines(blobs, along_rows):
            yield line.top.min(), line.left.min(), line.bottom.max(), line.right.max()
        if along_columns is not None:
            for line in _lines(blobs.turned(), along_columns):
                yield line.left.min(), line.top.min(), line.right.max(), line.bottom.max()


def _lines(blobs: Blobs, limits: _Limits) -> Iterator[Blobs]:
    """Glyphs of about one height, ink and contrast that stand side by side."""
    width = blobs.right - blobs.left
    glyphs = blobs.take(
        (blobs.height >= HEIGHT[0]) & (blobs.height <= HEIGHT[1]) & (width <= ASPECT * blobs.height)
    )
    one, other = _neighbours(glyphs)
    if len(one) == 0:
        return
    links = coo_matrix((np.ones(len(one)), (one, other)), shape=(len(glyphs), len(glyphs)))
    _, line_of = connected_components(links, directed=False)
    for line in np.flatnonzero(np.bincount(line_of) >= limits.glyphs):
        members = glyphs.take(line_of == line)
        if (
            members.steep.mean() >= limits.steepness
            and members.flat.mean() >= limits.flatness
            and members.contrast.std() <= limits.spread * members.contrast.mean()
            and members.height.std() <= 2 * limits.spread * members.height.mean()
        ):
            yield members


def _neighbours(glyphs: Blobs) -> tuple[_Whole, _Whole]:
    """Pairs of glyphs that may follow one another in a word or across the space between two."""
    none = np.zeros(0, np.int64)
    count = len(glyphs)
    if count < _MIN_GLYPHS:
        return none, none
    end = np.searchsorted(glyphs.left, glyphs.right + 1.6 * np.maximum(glyphs.height, 8), side="right")
    pairs = []
    for step in range(1, int((end - np.arange(count)).max())):
        first = np.arange(count - step)
        first = first[first + step < end[first]]
        pairs.append((first, first + step))
    one = np.concatenate([none, *(first for first, _ in pairs)])
    other = np.concatenate([none, *(second for _, second in pairs)])
    fits = _alike(glyphs.take(one), glyphs.take(other))
    return one[fits], other[fits]


def _alike(one: Blobs, other: Blobs) -> npt.NDArray[np.bool_]:
    taller = np.maximum(one.height, other.height)
    gap = other.left - one.right
    above, below = np.abs(one.top - other.top), np.abs(one.bottom - other.bottom)
    middle = np.abs((one.top + one.bottom) - (other.top + other.bottom)) / 2
    stronger = np.maximum(one.contrast, other.contrast)
    fits: npt.NDArray[np.bool_] = (
        (taller <= 2 * np.minimum(one.height, other.height))
        & (gap <= 0.9 * taller + 2)
        & (gap >= -0.3 * taller)
        & (np.minimum(above, below) <= 0.15 * taller + 1)  # one baseline, or one top line
        & (middle <= 0.35 * taller + 1)
        & (np.abs(one.contrast - other.contrast) <= 0.25 * stronger + 10)
        & (np.abs(one.ink - other.ink) <= _SAME_INK)
    )
    return fits
