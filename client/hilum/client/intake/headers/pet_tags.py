"""Which attributes are taken of PET besides: what a standardized uptake value rests on. Of other images they stay in their files."""

from collections.abc import Mapping

from hilum.client.intake.headers.tags import NOTED, TAKEN, Value

PET = "1.2.840.10008.5.1.4.1.1.128"
"""Positron Emission Tomography Image Storage. Enhanced PET says these things in another way."""

INJECTIONS = 0x0054_0016
NAME_OF_INJECTIONS = "RadiopharmaceuticalInformationSequence"
"""The tags hold how many items it has; 0 where that is not to be read. Of one item, what `OF_INJECTION` names."""

OF_SERIES: Mapping[int, tuple[str, str]] = {
    0x0008_0021: ("SeriesDate", "DA"),
    0x0008_0022: ("AcquisitionDate", "DA"),
    0x0008_0031: ("SeriesTime", "TM"),
    0x0010_1030: ("PatientWeight", "DS"),
    0x0028_0051: ("CorrectedImage", "CS"),
    0x0054_1001: ("Units", "CS"),
    0x0054_1006: ("SUVType", "CS"),
    0x0054_1102: ("DecayCorrection", "CS"),
    0x7053_0010: ("PhilipsPrivateCreator", "LO"),
    0x7053_1000: ("PhilipsSUVFactor", "DS"),
    0x7053_1009: ("PhilipsActivityFactor", "DS"),
}
"""Tag to keyword and value representation (PS3.6 chapter 6); of the last three in the words of this module."""

OF_INJECTION: Mapping[int, tuple[str, str]] = {
    0x0018_1072: ("RadiopharmaceuticalStartTime", "TM"),
    0x0018_1074: ("RadionuclideTotalDose", "DS"),
    0x0018_1075: ("RadionuclideHalfLife", "DS"),
    0x0018_1078: ("RadiopharmaceuticalStartDateTime", "DT"),
}
"""The same, inside an item of Radiopharmaceutical Information Sequence (0054,0016)."""

PHILIPS = "Philips PET Private Group"
_OF_PHILIPS = ("PhilipsPrivateCreator", "PhilipsSUVFactor", "PhilipsActivityFactor")

TAKEN_OF_PET: Mapping[int, tuple[str, str]] = {**TAKEN, **OF_SERIES}
NOTED_OF_PET: Mapping[int, str] = {**NOTED, INJECTIONS: NAME_OF_INJECTIONS}


def drop_other_makers(values: dict[str, Value]) -> None:
    """Take out what stands where Philips has its private elements, unless they are its own (PS3.5 section 7.8.1)."""
    if values.get(_OF_PHILIPS[0]) != PHILIPS:
        for name in _OF_PHILIPS:
            values.pop(name, None)
