"""What was found, laid over the image that it was found on: pictures for the eyes of the site alone.

Shapes: D slices, H rows, W columns.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from hilum.client.predictions.results import Boxes, FoundBox, LabelMap
from hilum.client.state.catalogue import Item

_COLOURS = ((255, 140, 0), (0, 190, 255), (255, 80, 160), (120, 220, 60), (200, 150, 255), (255, 225, 60))
"""Of the classes in turn: bright ones that a grey image does not have, told apart in the common kinds of colour blindness too."""
_VEIL = 0.35  # how much of a colour lies over the inside of a mask; its edge is drawn whole
_CT_WINDOW_HU = (-160.0, 240.0)  # level 40, width 400: soft tissue
_PERCENTILES = (1.0, 99.5)
_EDGE = 512  # pixels of a picture's longest edge
_TILES = 9  # slices of a volume that are shown
_LINE = 16  # pixels of the legend's lines

Pixels = npt.NDArray[Any]


def write_overlay(path: Path, array: Pixels, item: Item, result: LabelMap | Boxes) -> None:
    """Write a PNG: an image, the middle frame of a clip, or up to nine slices of a volume that show what was found.

    Args:
        path: Where to.
        array: The item's, as it lies in the cache.
        item: What it is, and its spacing.
        result: What was found on it.
    """
    names = _names(result)
    if item.kind == "volume":
        window = _window(array, item)
        planes: list[tuple[int | None, Pixels]] = [
            (place, _windowed(array[place], *window)) for place in _places(array.shape[0], result)
        ]
    else:
        still = np.asarray(array[len(array) // 2] if item.kind == "cine" else array)
        planes = [(None, still if still.dtype == np.uint8 else (still // 257).astype(np.uint8))]
    side = int(np.ceil(np.sqrt(len(planes))))
    tiles = [
        _tile(plane, place, item, result, names, _EDGE // (1 if side == 1 else 2)) for place, plane in planes
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    _with_legend(_sheet(tiles, side), names).save(path, "PNG")


def _names(result: LabelMap | Boxes) -> Sequence[str]:
    if isinstance(result, LabelMap):
        return result.names
    return sorted({one.name for one in result.found})


def _places(depth: int, result: LabelMap | Boxes) -> list[int]:
    """Return slices, evenly spaced over those that show something; over all where none does."""
    if isinstance(result, LabelMap):
        shown = np.flatnonzero(result.labels.any(axis=(1, 2)))
    else:
        shown = np.array(sorted({k for one in result.found for k in _slices(one)}), int)
    among = shown if len(shown) else np.arange(depth)
    picked = np.unique(np.linspace(0, len(among) - 1, min(_TILES, len(among))).round().astype(int))
    return [int(place) for place in among[picked]]


def _slices(one: FoundBox) -> Iterator[int]:
    assert one.slices is not None, "a box in a volume has slices"
    yield from range(one.slices[0], one.slices[1] + 1)


def _window(array: Pixels, item: Item) -> tuple[float, float]:
    if item.units == "hounsfield":
        return _CT_WINDOW_HU
    low, high = np.percentile(array[:: max(1, len(array) // 32)], _PERCENTILES)
    return float(low), float(high)


def _windowed(plane: Pixels, low: float, high: float) -> npt.NDArray[np.uint8]:
    unit = (np.asarray(plane, np.float32) - low) / max(high - low, 1e-6)
    shown: npt.NDArray[np.uint8] = np.rint(unit.clip(0, 1) * 255).astype(np.uint8)
    return shown


def _tile(
    plane: Pixels, place: int | None, item: Item, result: LabelMap | Boxes, names: Sequence[str], edge: int
) -> Image.Image:
    """Draw one plane, in its physical proportions."""
    spacing = item.spacing_mm[-2:] if len(item.spacing_mm) > 1 else (1.0, 1.0)
    extent = (plane.shape[0] * spacing[0], plane.shape[1] * spacing[1])
    height, width = (max(1, round(edge * part / max(extent))) for part in extent)
    picture = (
        Image.fromarray(np.ascontiguousarray(plane))
        .convert("RGB")
        .resize((width, height), Image.Resampling.BILINEAR)
    )
    if isinstance(result, LabelMap):
        labels = Image.fromarray(
            result.labels if place is None else np.ascontiguousarray(result.labels[place])
        )
        picture = _veiled(picture, np.asarray(labels.resize((width, height), Image.Resampling.NEAREST)))
    else:
        scale = (width / plane.shape[1], height / plane.shape[0])
        _outline(
            picture, [one for one in result.found if place is None or place in _slices(one)], names, scale
        )
    if place is not None:
        ImageDraw.Draw(picture).text(
            (4, 2), f"slice {place + 1}", fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0)
        )
    return picture


def _veiled(picture: Image.Image, labels: Pixels) -> Image.Image:
    shown = np.asarray(picture, np.float32)
    for number in np.unique(labels[labels > 0]).tolist():
        inside = labels == number
        rim = inside & ~ndimage.binary_erosion(inside)
        share = np.where(rim, 1.0, np.where(inside, _VEIL, 0.0))[..., None]
        shown = shown * (1 - share) + share * np.array(_colour(number - 1), np.float32)
    return Image.fromarray(np.rint(shown).astype(np.uint8))


def _outline(
    picture: Image.Image, found: Sequence[FoundBox], names: Sequence[str], scale: tuple[float, float]
) -> None:
    draw = ImageDraw.Draw(picture)
    for one in found:
        left, top = one.x * scale[0], one.y * scale[1]
        right, bottom = left + one.width * scale[0], top + one.height * scale[1]
        colour = _colour(names.index(one.name))
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        draw.text(
            (left + 3, max(0, top - 13)),
            f"{one.score:.2f}",
            fill=colour,
            stroke_width=1,
            stroke_fill=(0, 0, 0),
        )


def _colour(number: int) -> tuple[int, int, int]:
    return _COLOURS[number % len(_COLOURS)]


def _sheet(tiles: Sequence[Image.Image], side: int) -> Image.Image:
    width, height = (max(size) for size in zip(*(tile.size for tile in tiles), strict=True))
    rows = -(-len(tiles) // side)
    sheet = Image.new("RGB", (side * width, rows * height))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % side * width, number // side * height))
    return sheet


def _with_legend(sheet: Image.Image, names: Sequence[str]) -> Image.Image:
    """Write the classes below, each in its colour."""
    lines = list(names) or ["nothing found"]
    whole = Image.new("RGB", (sheet.width, sheet.height + _LINE * len(lines) + 4))
    whole.paste(sheet, (0, 0))
    draw = ImageDraw.Draw(whole)
    for number, name in enumerate(lines):
        top = sheet.height + 2 + _LINE * number
        draw.rectangle((4, top + 2, 14, top + 12), fill=_colour(number) if names else (128, 128, 128))
        draw.text((20, top), name.encode("ascii", "replace").decode(), fill=(255, 255, 255))
    return whole
