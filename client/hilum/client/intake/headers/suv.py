"""What a value of a PET image is multiplied by to be a standardized uptake value by body weight (SUVbw), where the file bears it out.

SUVbw is g/ml: activity per millilitre, divided by what was injected per gram of the patient. The recipe is the vendor-neutral
pseudo-code of QIBA (qibawiki.rsna.org, "Standardized Uptake Value (SUV)"; Profile "FDG-PET/CT as an Imaging Biomarker Measuring
Response to Cancer Therapy"), with the attributes of DICOM PS3.3 sections C.8.9.1 (PET Series) and C.8.9.2 (PET Isotope). What it
does about a series that was made later than its images is left out: such a one has no factor here. Where anything is missing, contradictory or can't be true, there is no factor, and a
code says why: a wrong one would look like a right one.

The factor tells of a patient's weight and dose. It stays in the site's catalogue; the two are written nowhere.
"""

import re
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from hilum.client.intake.headers.header_values import optional_number, seconds, text_of, words_of
from hilum.client.intake.headers.pet_tags import NAME_OF_INJECTIONS
from hilum.client.intake.headers.tags import Tags, Value
from hilum.client.intake.no_suv import DOSE_BQ_PER_KG, WEIGHT_KG, NoSuv

HALF_LIFE_S = (60.0, 10 * 86_400.0)  # rubidium-82 has 76 s, iodine-124 four days
_SHORT_LIVED_S = 4 * 3600.0
"""Below it nobody is scanned the day after the injection, so that its time of day is enough."""
_HALF_LIVES = 6.0
"""After more of them, at a sixty-fourth of the dose, nobody scans."""
_DAY_S = 86_400.0
_LONGEST_SCAN_S = 6 * 3600.0
_SAME_MOMENT_S = 60.0  # of an injection that is told twice
_ROUNDED_S = 1.0  # a time may stand with fractions of a second or without
_GRAMS = 1000.0

_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")  # PS3.5 table 6.2-1, with the points of ACR-NEMA
_MOMENT = re.compile(r"(\d{8})(\d{4}(?:\d\d(?:\.\d{1,6})?)?)")  # what has an offset from UTC is none


class _Stated(NamedTuple):
    """What all images of a series say alike, as it stands in the file."""

    corrected: Value
    decay: Value
    units: Value
    kind: Value
    philips_suv: Value
    philips_activity: Value
    weight: Value
    injections: Value
    dose: Value
    half_life: Value
    injected_at: Value
    injected_on: Value
    series_date: Value
    series_time: Value


_KEYWORDS = (
    "CorrectedImage",
    "DecayCorrection",
    "Units",
    "SUVType",
    "PhilipsSUVFactor",
    "PhilipsActivityFactor",
    "PatientWeight",
    NAME_OF_INJECTIONS,
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
    "SeriesDate",
    "SeriesTime",
)


class _OfSeries(NamedTuple):
    """The factor, or why there is none, and when the scan began if the factor rests on that (seconds; see `_moment`)."""

    factor: float | NoSuv
    began_s: float | None = None


class _NoFactor(Exception):  # noqa: N818 - not an error: it is the answer
    """There is no factor; caught where the series was asked about."""

    def __init__(self, reason: NoSuv) -> None:
        super().__init__(reason.value)
        self.reason = reason


def suv_factor(tags: Tags) -> float | NoSuv:
    """Return what a rescaled value of a PET image is multiplied by to be in SUV by body weight, or why there is nothing.

    Args:
        tags: Of a file of the class Positron Emission Tomography Image Storage.
    """
    found = _of_series(_Stated(*[tags.values.get(keyword) for keyword in _KEYWORDS]))
    if found.began_s is None:
        return found.factor
    # Series date and time are the scan's start only where they are not after an image: else the series was made later.
    acquired_s = _moment(tags.get("AcquisitionDate"), tags.get("AcquisitionTime"))
    if acquired_s is None:
        return NoSuv.SCAN_TIME
    since_s = acquired_s - found.began_s
    return found.factor if -_ROUNDED_S <= since_s <= _LONGEST_SCAN_S else NoSuv.OTHER_START


@lru_cache(maxsize=256)
def _of_series(stated: _Stated) -> _OfSeries:
    try:
        return _worked_out(stated)
    except _NoFactor as no:
        return _OfSeries(no.reason)


def _worked_out(stated: _Stated) -> _OfSeries:
    """Return the factor by the units (0054,1001) of what the rescale gives.

    Raises:
        _NoFactor: If there is none.
    """
    corrected = set(words_of(stated.corrected))
    if "ATTN" not in corrected or corrected.isdisjoint({"DECY", "DECAY"}):
        raise _NoFactor(NoSuv.NOT_CORRECTED)
    if text_of(stated.decay).upper() not in ("START", "ADMIN"):
        raise _NoFactor(NoSuv.OTHER_DECAY)
    match text_of(stated.units).upper():
        case "BQML":
            return _of_activity(stated, 1.0)
        case "GML" if text_of(stated.kind).upper() in ("", "BW"):  # without a type it is by weight (C.8.9.1)
            return _OfSeries(1.0)
        case "GML":
            raise _NoFactor(NoSuv.OTHER_SUV)
        case "CNTS":
            if (factor := _positive(stated.philips_suv)) is not None:
                return _OfSeries(factor)
            if (becquerel := _positive(stated.philips_activity)) is not None:
                return _of_activity(stated, becquerel)
    raise _NoFactor(NoSuv.OTHER_UNITS)


def _of_activity(stated: _Stated, bq_per_ml: float) -> _OfSeries:
    """Return the factor of values that are Bq/ml once they are multiplied by `bq_per_ml`: by what of the dose was left.

    Raises:
        _NoFactor: If there is none.
    """
    weight_kg = _between(_positive(stated.weight), WEIGHT_KG, NoSuv.WEIGHT)
    if stated.injections != 1:
        raise _NoFactor(NoSuv.INJECTION)
    dose_bq = _positive(stated.dose) or 0.0
    _between(dose_bq / weight_kg, DOSE_BQ_PER_KG, NoSuv.DOSE)
    if text_of(stated.decay).upper() == "ADMIN":  # the values are those of the moment of the injection
        return _OfSeries(bq_per_ml * weight_kg * _GRAMS / dose_bq)
    half_life_s = _between(_positive(stated.half_life), HALF_LIFE_S, NoSuv.HALF_LIFE)
    began_s = _moment(stated.series_date, stated.series_time)
    if began_s is None:
        raise _NoFactor(NoSuv.SCAN_TIME)
    injected_s = _injected(stated, began_s, half_life_s)
    _between(began_s - injected_s, (0.0, _HALF_LIVES * half_life_s), NoSuv.NOT_BEFORE_SCAN)
    if 0 in (began_s % _DAY_S, injected_s % _DAY_S):  # midnight sharp: the time was taken out
        raise _NoFactor(NoSuv.NOT_BEFORE_SCAN)
    left_bq = dose_bq * 2.0 ** ((injected_s - began_s) / half_life_s)
    return _OfSeries(bq_per_ml * weight_kg * _GRAMS / left_bq, began_s)


def _injected(stated: _Stated, began_s: float, half_life_s: float) -> float:
    """Return when the dose was given; where only the time of day is told, on the day of the scan.

    Raises:
        _NoFactor: If nothing certain tells it.
    """
    time, moment = text_of(stated.injected_at), text_of(stated.injected_on)
    at_s = seconds(time)
    found = _MOMENT.fullmatch(moment)
    on_s = _moment(*found.groups()) if found else None
    if (time and (at_s is None or at_s >= _DAY_S)) or (moment and on_s is None) or not (time or moment):
        raise _NoFactor(NoSuv.INJECTION_TIME)
    if on_s is not None:
        if at_s is not None and abs(on_s % _DAY_S - at_s) > _SAME_MOMENT_S:
            raise _NoFactor(NoSuv.INJECTION_TIME)
        return on_s
    assert at_s is not None
    if half_life_s > _SHORT_LIVED_S:
        raise _NoFactor(NoSuv.INJECTION_DAY)
    return began_s - began_s % _DAY_S + at_s


@lru_cache(maxsize=4096)
def _moment(day: Value, time: Value) -> float | None:
    """Return seconds since the first day of year 1, of a date and a time of day (VR DA and TM); None where one is no such thing."""
    found, of_day_s = _DATE.fullmatch(text_of(day)), seconds(text_of(time))
    if found is None or of_day_s is None or of_day_s >= _DAY_S:
        return None
    try:
        days = date(*map(int, found.groups())).toordinal()
    except ValueError:
        return None
    return days * _DAY_S + of_day_s


def _positive(value: Value) -> float | None:
    """Return one finite number above 0, else None."""
    number = optional_number(value)
    return number if number is not None and number > 0 else None


def _between(number: float | None, bounds: tuple[float, float], otherwise: NoSuv) -> float:
    if number is None or not bounds[0] <= number <= bounds[1]:
        raise _NoFactor(otherwise)
    return number
