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

Plane = npt.NDArray[np.float32]
_Whole = npt.NDArray[np.int64]

_MAGNIFIED_PX = 2_000_000  # images up to this size are also searched magnified, for the smallest print
_CONTRASTS = (20.0, 45.0, 80.0, 130.0)  # of 255: how far strokes stand out of what lies around them
_STROKE = 9  # strokes are thinner than this
_HEIGHT = (5, 40)  # of a glyph, first and last
_ASPECT = 1.8  # a glyph is not wider than this many heights
_MIN_AREA = 5
_MIN_GLYPHS = 3  # fewer make no name, number or date
_MAX_BLOBS = 6_000  # of the strongest contrast; more than that is noise
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


@dataclass(frozen=True)
class _Blobs:
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

    def take(self, which: npt.NDArray[np.generic]) -> "_Blobs":
        return _Blobs(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def turned(self) -> "_Blobs":
        """The same with rows and columns exchanged, for text that runs along columns."""
        turned = _Blobs(
            self.left, self.right, self.top, self.bottom, self.ink, self.contrast, self.flat, self.steep
        )
        return turned.take(np.argsort(turned.left, kind="stable"))

    @property
    def height(self) -> npt.NDArray[np.float64]:
        return self.bottom - self.top


def find_text(image: npt.NDArray[np.generic]) -> list[TextBox]:
    """Where an image may hold text.

    Args:
        image: (H, W) or (H, W, 3), any type; values as stored or as displayed.

    Returns:
        Boxes, which may overlap; empty where no text was found.
    """
    return list(_search(image))


def has_text(image: npt.NDArray[np.generic]) -> bool:
    """Whether an image may hold text: (H, W) or (H, W, 3)."""
    return next(_search(image), None) is not None


def _search(image: npt.NDArray[np.generic]) -> Iterator[TextBox]:
    for plane in _planes(image):
        for scale in _LIMITS:
            if scale > 1 and plane.size > _MAGNIFIED_PX:
                continue
            scaled = _scaled(plane, scale)
            for ink in (scaled, 255 - scaled):
                for box in _boxes(np.ascontiguousarray(ink), scale):
                    yield TextBox(*(round(edge / scale) for edge in box))


def _planes(image: npt.NDArray[np.generic]) -> Iterator[Plane]:
    """The brightness; of a colour image with colours in it, their strength too."""
    values = np.asarray(image, np.float32)
    if values.ndim < _COLOUR_AXES:
        yield _stretched(values)
        return
    yield _stretched(values.mean(axis=-1))
    strength = values.max(axis=-1) - values.min(axis=-1)
    if strength.max() > _COLOURED * float(np.ptp(values)):
        yield _stretched(strength)


def _stretched(values: Plane) -> Plane:
    """To 0..255, without the few brightest and darkest pixels."""
    low, high = np.percentile(values, (0.05, 99.95))
    if low == high:
        low, high = values.min(), values.max()
    wide = (values - low) * np.float32(255 / max(float(high - low), 1e-6))
    stretched: Plane = wide.clip(0, 255).astype(np.float32)
    return stretched


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
    """Text in bright ink."""
    along_rows, along_columns = _LIMITS[scale]
    reach = 5 if scale > 1 else 3  # pixels over which an edge climbs
    if min(plane.shape) < _HEIGHT[0]:
        return
    padded = np.pad(plane, _STROKE, mode="edge")
    relief = (padded - ndimage.grey_opening(padded, size=(_STROKE, _STROKE)))[
        _STROKE:-_STROKE, _STROKE:-_STROKE
    ]
    slope = ndimage.maximum_filter(plane, reach) - ndimage.minimum_filter(plane, reach)
    for contrast in _CONTRASTS:
        blobs = _blobs(plane, relief, slope, contrast)
        for line in _lines(blobs, along_rows):
            yield line.top.min(), line.left.min(), line.bottom.max(), line.right.max()
        if along_columns is not None:
            for line in _lines(blobs.turned(), along_columns):
                yield line.left.min(), line.top.min(), line.right.max(), line.bottom.max()


def _blobs(plane: Plane, relief: Plane, slope: Plane, contrast: float) -> _Blobs:
    """Connected strokes of the size of a glyph."""
    labels, count = ndimage.label(relief > contrast, np.ones((3, 3)))
    edges = np.array(
        [(r.start, r.stop, c.start, c.stop) for r, c in ndimage.find_objects(labels)], float
    ).reshape(-1, 4)
    inside = np.flatnonzero(labels)
    of_blob = labels.ravel()[inside] - 1
    height, value = relief.ravel()[inside], plane.ravel()[inside]
    area = np.bincount(of_blob, minlength=count)
    peak, ink = np.zeros(count), np.zeros(count)
    np.maximum.at(peak, of_blob, height)
    np.maximum.at(ink, of_blob, value)
    near_peak = height > 0.8 * peak[of_blob]
    flat = np.bincount(of_blob, weights=near_peak, minlength=count) / area
    steep = np.bincount(of_blob, weights=slope.ravel()[inside], minlength=count) / (area * peak)
    blobs = _Blobs(edges[:, 0], edges[:, 1], edges[:, 2], edges[:, 3], ink, peak, flat, steep)
    longer = np.maximum(blobs.height, edges[:, 3] - edges[:, 2])
    kept = np.flatnonzero((longer >= _HEIGHT[0]) & (longer <= _ASPECT * _HEIGHT[1]) & (area >= _MIN_AREA))
    if len(kept) > _MAX_BLOBS:
        kept = kept[np.argsort(-peak[kept])[:_MAX_BLOBS]]
    return blobs.take(kept[np.argsort(blobs.left[kept], kind="stable")])


def _lines(blobs: _Blobs, limits: _Limits) -> Iterator[_Blobs]:
    """Glyphs of about one height, ink and contrast that stand side by side."""
    width = blobs.right - blobs.left
    glyphs = blobs.take(
        (blobs.height >= _HEIGHT[0]) & (blobs.height <= _HEIGHT[1]) & (width <= _ASPECT * blobs.height)
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


def _neighbours(glyphs: _Blobs) -> tuple[_Whole, _Whole]:
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


def _alike(one: _Blobs, other: _Blobs) -> npt.NDArray[np.bool_]:
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
