"""What may carry burned-in text is held back, or only the part that is free of it is taken.

`BurnedInAnnotation` (PS3.3 section C.7.6.1) is believed where it says yes, and never where it says no. What is held is kept by `quarantine_store`; the pixels are
searched by `text_search`, where they are decoded.

Shapes: H rows, W columns.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hilum.client.intake.instance import STACKED_FAMILIES, Family, Instance, Region
from hilum.client.intake.pixels.crop import Crop

SUSPECT_FAMILIES: frozenset[Family] = frozenset({"ultrasound", "secondary", "angiogram", "photograph"})
_SUSPECT_TYPES = ("SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "SECONDARY", "DOSE", "REPORT")
_SCREENS_AMONG_SLICES = re.compile(r"SCREEN|REPORT|DOSE[ _]?(?:INFO|SHEET|SUMMARY)|^DOSE$|\bPROT\b")
MIN_CROP = 8  # pixels; a smaller piece is not an image


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
    """Tell whether the image may carry burned-in text: because it says so, or by what it is, even if it denies it.

    Ultrasound, secondary captures, angiograms and photographs always; any other whose ImageType (PS3.3 section
    C.7.6.1.1.2) tells of a screen or of a secondary image, though not a plain derived one such as a reformatted slice.
    """
    if instance.burned_in or instance.family in SUSPECT_FAMILIES:
        return True
    if instance.family in STACKED_FAMILIES:
        return shows_text(instance)
    values = instance.image_type
    derived_secondary = values[:2] == ("DERIVED", "SECONDARY")
    screens = any(words in value for value in values[2:] for words in _SUSPECT_TYPES)
    return derived_secondary or screens


def shows_text(instance: Instance) -> bool:
    """Tell whether a slice says that text is burned in, or is a dose report or another screen in the clothes of a slice."""
    return instance.burned_in or any(map(_SCREENS_AMONG_SLICES.search, instance.image_type[2:]))


def part_to_search(instance: Instance) -> Crop | None:
    """Return the part of an image that is taken if no text is in it; None of one that is not suspect, or held in any case.

    Of ultrasound with a calibrated region (PS3.3 section C.8.5.5) that region, else the whole.
    """
    if not is_suspect(instance) or instance.burned_in:
        return None
    region = _region_of(instance)
    return (0, 0, instance.pixels.rows, instance.pixels.columns) if region is None else _crop_of(region)


def hold_back(instance: Instance, has_text: bool | None) -> Verdict:
    """Judge one image.

    Args:
        instance: What the header says.
        has_text: Whether text was found in its `part_to_search`; None where nothing was searched: then a suspect image
            counts as held.

    Returns:
        Held, as every image is that says of itself that text is burned in; or free; ultrasound with a calibrated region is cropped to it.
    """
    if not is_suspect(instance):
        return Verdict(held=False)
    if has_text is not False or instance.burned_in:
        return Verdict(held=True)
    region = _region_of(instance)
    if region is None:
        return Verdict(held=False)
    return Verdict(held=False, crop=_crop_of(region), spacing_mm=region.spacing_mm)


def _region_of(instance: Instance) -> Region | None:
    return _region(instance.regions, (instance.pixels.rows, instance.pixels.columns))


def _region(regions: Iterable[Region], shape: tuple[int, ...]) -> Region | None:
    """Return the largest calibrated region that is a plane of space and lies within the image."""
    within = [one for one in regions if one.spacing_mm is not None and fits(_crop_of(one), shape)]
    return max(within, key=lambda one: _area(_crop_of(one)), default=None)


def _crop_of(region: Region) -> Crop:
    return region.row_first, region.column_first, region.row_last + 1, region.column_last + 1


def _area(crop: Crop) -> int:
    return (crop[2] - crop[0]) * (crop[3] - crop[1])


def fits(crop: Crop, shape: tuple[int, ...]) -> bool:
    """Tell whether a crop lies within an image of H rows and W columns, and is large enough to be one."""
    first_row, first_column, end_row, end_column = crop
    rows, columns = shape[:2]
    tall = first_row >= 0 and first_row + MIN_CROP <= end_row <= rows
    return tall and first_column >= 0 and first_column + MIN_CROP <= end_column <= columns
