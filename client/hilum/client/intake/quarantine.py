"""What may carry burned-in text is held back, or only the part that is free of it is taken.

`BurnedInAnnotation` (PS3.3 section C.7.6.1) is not believed. What is held is kept by `quarantine_store`; the pixels are
searched by `text_search`, where they are decoded.

Shapes: H rows, W columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hilum.client.intake.crop import Crop
from hilum.client.intake.instance import Family, Instance, Region

SUSPECT_FAMILIES: frozenset[Family] = frozenset({"ultrasound", "secondary", "angiogram", "photograph"})
_SUSPECT_TYPES = ("SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "SECONDARY", "DOSE", "REPORT")
MIN_CROP = 8  # pixels; a smaller piece is no image


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


def parts_to_search(instance: Instance) -> tuple[Crop, ...]:
    """The parts of an image that may free it if no text is in them, in order; none of one that is not suspect.

    Ultrasound's calibrated region (PS3.3 section C.8.5.5) comes first, then the whole.
    """
    if not is_suspect(instance):
        return ()
    shape = instance.pixels.rows, instance.pixels.columns
    region = _region(instance.regions, shape)
    whole = (0, 0, *shape)
    return (whole,) if region is None else (_crop_of(region), whole)


def hold_back(instance: Instance, free: Crop | None) -> Verdict:
    """Judge one image.

    Args:
        instance: What the header says.
        free: The first of `parts_to_search` in which a search of the pixels found no text; None where each has some, or
            where nothing was searched: then a suspect image counts as held.

    Returns:
        Held, or free; ultrasound of which the calibrated region alone was searched is cropped to it.
    """
    if not is_suspect(instance):
        return Verdict(held=False)
    if free is None:
        return Verdict(held=True)
    region = _region(instance.regions, (instance.pixels.rows, instance.pixels.columns))
    if region is not None and free == _crop_of(region):
        return Verdict(held=False, crop=free, spacing_mm=region.spacing_mm)
    return Verdict(held=False)


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
