"""What the values of a CT measure: Hounsfield units only where the file bears it out (PS3.3 section C.8.2.1.1)."""

HOUNSFIELD = "HU"

_WORDS = frozenset({"HU", "HOUNSFIELD", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS"})
# Image Type value 4 of multi-energy CT (section C.8.15.3.8): what is told of matter instead of attenuation.
_OF_MATTER = frozenset(
    {
        "MAT_SPECIFIC",
        "MAT_FRACTIONAL",
        "MAT_VALUE_BASED",
        "EFF_ATOMIC_NUM",
        "ELECTRON_DENSITY",
        "MAT_MODIFIED",
        "MAT_REMOVED",
    }
)


def quantity_of(
    family: str, rescale_type: str, image_type: tuple[str, ...], *, slope: bool, intercept: bool
) -> str:
    """Return what a frame's values measure.

    A CT states slope and intercept, and the type of what they give unless that is Hounsfield units. Without them stored
    values are no such units, whatever else is said.

    Args:
        family: Of the instance.
        rescale_type: Rescale Type (0028,1054), empty where the file has none.
        image_type: Upper case.
        slope: Rescale Slope is there.
        intercept: Rescale Intercept is there.

    Returns:
        `HU`; another type as the file states it, upper case; or empty, of what nobody knows.
    """
    stated = rescale_type.strip(" \0").upper()
    if family != "ct":
        return ""
    if stated in _WORDS or not stated:
        known = slope and intercept and (bool(stated) or _OF_MATTER.isdisjoint(image_type))
        return HOUNSFIELD if known else ""
    return stated
