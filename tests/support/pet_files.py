"""PET as three vendors write it, with what a standardized uptake value rests on, and what is wrong with it where it is."""

from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

PET = "1.2.840.10008.5.1.4.1.1.128"
PHILIPS = "Philips PET Private Group"
F18_S = 6586.2
WEIGHT_KG, DOSE_BQ = 70.0, 350e6


def injection(**changes: Any) -> Dataset:
    """350 MBq of fluorine-18 at 9:00; None removes an attribute."""
    values = {
        "Radiopharmaceutical": "ZZPHI TRACER",
        "RadiopharmaceuticalStartTime": "090000",
        "RadionuclideTotalDose": DOSE_BQ,
        "RadionuclideHalfLife": F18_S,
        "RadiopharmaceuticalStartDateTime": "20240310090000.00",
        **changes,
    }
    one = Dataset()
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-111A1", "SRT", "^18^Fluorine"
    one.RadionuclideCodeSequence = Sequence([code])
    with pydicom.config.disable_value_validation():
        for name, value in values.items():
            if value is not None:
                setattr(one, name, value)
    return one


def pet(*injections: Dataset, **changes: Any) -> dict[str, Any]:
    """Attributes of a slice in Bq/ml whose scan began at 10:00; None removes one."""
    return {
        "Modality": "PT",
        "SeriesDate": "20240310",
        "SeriesTime": "100000",
        "AcquisitionDate": "20240310",
        "AcquisitionTime": "100000.00",
        "PatientWeight": WEIGHT_KG,
        "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM"],
        "Units": "BQML",
        "DecayCorrection": "START",
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RadiopharmaceuticalInformationSequence": Sequence(list(injections) or [injection()]),
        **changes,
    }


def add_philips(path: Path, *, creator: str = PHILIPS, suv: Any = None, activity: Any = None) -> None:
    """Put the private elements of Philips into a file: (7053,1000) and (7053,1009)."""
    dataset = pydicom.dcmread(path)
    block = dataset.private_block(0x7053, creator, create=True)
    for element, value in ((0x00, suv), (0x09, activity)):
        if value is not None:
            block.add_new(element, "DS", value)
    dataset.save_as(path)
