"""What may carry burned-in text is held back, or only the part that is free of it is taken.

`BurnedInAnnotation` (PS3.3 section C.7.6.1) is not believed. What is held is kept by `quarantine_store`.

Shapes: T frames, H rows, W columns; (H, W), (H, W, 3), and clips (T, H, W), (T, H, W, 3).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.client.intake.instance import Family, Instance, Region
from hilum.client.intake.text_detector import has_text

Crop = tuple[int, int, int, int]
"""First row, first column, row after the last, column after the last."""

SUSPECT_FAMILIES: frozenset[Family] = frozenset({"ultrasound", "secondary", "angiogram", "photograph"})
_SUSPECT_TYPES = ("SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "SECONDARY", "DOSE", "REPORT")
_GREY = {"MONOCHROME1", "MONOCHROME2"}
_FRAMES_LOOKED_AT = 12
MIN_CROP = 8  # pixels; a smaller piece is no image

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class Verdict:
    """Whether an image waits.

    Attributes:
        held: True where it may carry text.
        crop: The part to take instead of the whole, or None.
        spacing_mm: Distance between rows and between columns of that part where the file states one for it.
    """

    held: bool
    crop: Crop | None = None
    spacing_mm: tuple[float, float] | None = None


def is_suspect(instance: Instance) -> bool:
    """Whether the image may carry burned-in text by what it is, whatever it says of itself.

    Ultrasound, secondary captures, angiograms and photographs always; any other whose ImageType (PS3.3 section
    C.7.6.1.1.2) tells of a screen or of a secondary image, though not a plain derived one such as a reformatted slice.
    """
    if instance.family in SUSPECT_FAMILIES:
        return True
    values = instance.image_type
    derived_secondary = values[:2] == ("DERIVED", "SECONDARY") and instance.family not in {"ct", "mr", "pet"}
    screens = any(words in value for value in values[2:] for words in _SUSPECT_TYPES)
    return derived_secondary or screens


def hold_back(instance: Instance, pixels: Pixels | None) -> Verdict:
    """Judge one image.

    Args:
        instance: What the header says.
        pixels: As they would lie in the cache: (H, W), (H, W, 3) where the photometric interpretation is no grey one,
            or frames of these in front. None where they are not decoded yet: then a suspect image counts as held.

    Returns:
        Held, or free; free ultrasound is cropped to its calibrated region (PS3.3 section C.8.5.5).
    """
    if not is_suspect(instance):
        return Verdict(held=False)
    if pixels is None:
        return Verdict(held=True)
    # A palette makes colours of one sample a pixel.
    frames = _frames(pixels, colour=instance.pixels.photometric not in _GREY)
    region = _region(instance.regions, frames.shape[1:3])
    if region is not None and not _any_text(cropped(frames, _crop_of(region), 1)):
        return Verdict(held=False, crop=_crop_of(region), spacing_mm=region.spacing_mm)
    return Verdict(held=_any_text(frames))


def _frames(pixels: Pixels, *, colour: bool) -> Pixels:
    planes = pixels.ndim - int(colour)
    return pixels if planes == 3 else pixels[None]  # noqa: PLR2004 - frames, rows, columns


def _any_text(frames: Pixels) -> bool:
    return any(has_text(frame) for frame in _looked_at(frames))


def _looked_at(frames: Pixels) -> Iterator[Pixels]:
    """Every frame of a short clip; of a long one some, and its brightest and darkest values over time.

    Text that comes and goes between the frames looked at still stands in one of the two.
    """
    if len(frames) <= _FRAMES_LOOKED_AT:
        yield from frames
        return
    yield frames.max(axis=0)
    yield frames.min(axis=0)
    yield from frames[np.linspace(0, len(frames) - 1, _FRAMES_LOOKED_AT).round().astype(int)]


def _region(regions: Iterable[Region], shape: tuple[int, ...]) -> Region | None:
    """The largest calibrated region that is a plane of space and lies within the image."""
    within = [one for one in regions if one.spacing_mm is not None and fits(_crop_of(one), shape)]
    return max(within, key=lambda one: _area(_crop_of(one)), default=None)


def _crop_of(region: Region) -> Crop:
    return region.row_first, region.column_first, region.row_last + 1, region.column_last + 1


def _area(crop: Crop) -> int:
    return (crop[2] - crop[0]) * (crop[3] - crop[1])


def fits(crop: Crop, shape: tuple[int, ...]) -> bool:
    """Whether a crop lies within an image of H rows and W columns, and is large enough to be one."""
    first_row, first_column, end_row, end_column = crop
    rows, columns = shape[:2]
    tall = first_row >= 0 and first_row + MIN_CROP <= end_row <= rows
    return tall and first_column >= 0 and first_column + MIN_CROP <= end_column <= columns


def cropped(array: Pixels, crop: Crop, first_axis: int) -> Pixels:
    """A part of an image (`first_axis` 0) or of each frame (1)."""
    part = (slice(crop[0], crop[2]), slice(crop[1], crop[3]))
    return array[(slice(None),) * first_axis + part]
