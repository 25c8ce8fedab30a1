"""Why a PET volume has no standardized uptake value, and within which bounds what it rests on is believed."""

from hilum.client.intake.worded_code import WordedCode

WEIGHT_KG = (0.5, 500.0)
DOSE_BQ_PER_KG = (2e4, 1e8)
"""From a long-lived nuclide in an adult to rubidium in a child; MBq written as Bq lie far below, and with them a weight in grams
or of 1 kg, as it is put in place of a true one."""


class NoSuv(WordedCode):
    """Why a volume has no SUV."""

    NOT_LOOKED_FOR = (
        "not_looked_for",
        "an earlier Hilum indexed it and did not look: index again, if its files are there",
    )
    NO_HEADER = "no_header", "NIfTI tells neither weight nor dose"
    ENHANCED = "enhanced", "an enhanced object, whose way of saying it is not read"
    NOT_CORRECTED = "not_corrected", "not corrected for attenuation and decay, or nothing says so"
    OTHER_DECAY = (
        "other_decay_correction",
        "decay is corrected neither to the scan's start nor to the injection",
    )
    OTHER_UNITS = (
        "other_units",
        "the values are neither Bq/ml, nor g/ml, nor counts with the private factor of Philips",
    )
    OTHER_SUV = "other_suv", "an uptake value by something else than body weight"
    WEIGHT = "weight", f"the weight is missing, or not from {WEIGHT_KG[0]:g} to {WEIGHT_KG[1]:g} kg"
    INJECTION = "injection", "no injection is told of, or several, or it is malformed"
    DOSE = (
        "dose",
        f"the dose is missing, or not from {DOSE_BQ_PER_KG[0] / 1e6:g} to {DOSE_BQ_PER_KG[1] / 1e6:g} MBq a kilogram, told in Bq",
    )
    HALF_LIFE = "half_life", "the half-life is missing, or not from a minute to ten days"
    SCAN_TIME = "scan_time", "date or time of the series or of an image is missing or malformed"
    OTHER_START = "other_start", "the series begins after one of its images, or hours before"
    INJECTION_TIME = "injection_time", "the time of the injection is missing, malformed or told in two ways"
    INJECTION_DAY = "injection_day", "the day of the injection is missing, and the nuclide lives for days"
    NOT_BEFORE_SCAN = (
        "injection_not_before_scan",
        "the injection is not before the scan, by six half-lives at most (midnight between them, altered dates, ...)",
    )
    SLICES_DIFFER = "slices_differ", "its slices say different things"
