"""Small pictures of cached images and volumes, for the site's own eyes.

Shapes: D slices or T frames, H rows, W columns.
"""

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hilum.client.state.catalogue import Item

_CT_WINDOW_HU = (-160.0, 240.0)  # level 40, width 400: soft tissue
_PERCENTILES = (1.0, 99.5)
_JPEG_QUALITY = 82
_COLOURS = 3

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class Thumbnail:
    """One picture.

    Attributes:
        plane: Which cut of a volume it is, or empty.
        data: Base64 of a JPEG.
    """

    plane: str
    width: int
    height: int
    data: str = field(repr=False)


def thumbnails(array: Pixels, item: Item, edge: int) -> list[Thumbnail]:
    """Return an image as it is, the middle frame of a clip, or the three middle planes of a volume.

    Args:
        array: (H, W), (H, W, 3), (T, H, W), (T, H, W, 3) or (D, H, W), in the item's units.
        item: Says what it is, and its spacing.
        edge: Longest edge of a picture in pixels; the planes of a volume share one scale.
    """
    if item.kind == "image":
        return [_picture("", _shown(np.asarray(array), item), _last_two(item), edge, None)]
    if item.kind != "volume" or (array.ndim > _COLOURS):
        return [_picture("", _shown(np.asarray(array[len(array) // 2]), item), _last_two(item), edge, None)]
    depth, height, width = item.spacing_mm if len(item.spacing_mm) == _COLOURS else (1.0, 1.0, 1.0)
    d, h, w = (size // 2 for size in array.shape)
    upright = slice(None, None, -1) if _slices_go_up(item) else slice(None)
    planes = [
        ("slices", np.asarray(array[d]), (height, width)),
        ("rows", np.asarray(array[:, h])[upright], (depth, width)),
        ("columns", np.asarray(array[:, :, w])[upright], (depth, height)),
    ]
    longest_mm = max(size * mm for size, mm in zip(array.shape, (depth, height, width), strict=True))
    low, high = _window(np.concatenate([plane.ravel() for _, plane, _ in planes]), item)
    return [
        _picture(name, _windowed(plane, low, high), spacing, edge, edge / longest_mm)
        for name, plane, spacing in planes
    ]


def _slices_go_up(item: Item) -> bool:
    """Tell whether the first slice is the one nearest the feet: pictures have the head on top."""
    return len(item.affine) == 16 and item.affine[8] > 0  # noqa: PLR2004 - a 4 x 4 matrix; z of the slice axis


def _last_two(item: Item) -> tuple[float, float]:
    return (item.spacing_mm[-2], item.spacing_mm[-1]) if len(item.spacing_mm) > 1 else (1.0, 1.0)


def _shown(plane: Pixels, item: Item) -> Pixels:
    if plane.dtype == np.uint8:
        return plane
    if item.units == "display":
        return (plane // 257).astype(np.uint8)  # 65535 is white
    return _windowed(plane, *_window(plane, item))


def _window(values: Pixels, item: Item) -> tuple[float, float]:
    if item.units == "hounsfield":
        return _CT_WINDOW_HU
    low, high = np.percentile(values, _PERCENTILES)
    return (float(low), float(high)) if high > low else (float(values.min()), float(values.max()))


def _windowed(plane: Pixels, low: float, high: float) -> Pixels:
    wide = (plane.astype(np.float32) - low) / max(high - low, 1e-6)
    shown: Pixels = np.rint(wide.clip(0, 1) * 255).astype(np.uint8)
    return shown


def _picture(
    name: str, plane: Pixels, spacing_mm: tuple[float, float], edge: int, scale: float | None
) -> Thumbnail:
    """Scale to physical proportions; `scale` is pixels a millimetre, or None to fill the edge."""
    extent = plane.shape[0] * spacing_mm[0], plane.shape[1] * spacing_mm[1]
    factor = edge / max(extent) if scale is None else scale
    height, width = (max(1, round(length * factor)) for length in extent)
    picture = Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return Thumbnail(name, width, height, base64.b64encode(stream.getvalue()).decode())
