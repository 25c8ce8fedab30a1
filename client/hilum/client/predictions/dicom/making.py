"""What every object that is written says of itself: who made it and with what, in which series, and when."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from highdicom import AlgorithmIdentificationSequence
from highdicom.sr import AlgorithmIdentification
from pydicom import Dataset
from pydicom.sr.codedict import codes

from hilum.client.predictions.dicom.stand_ins import UNICODE
from hilum.client.predictions.dicom.uids import derived_uid
from hilum.client.predictions.results import Identity
from hilum.client.predictions.sources import DicomSource
from hilum.common import __version__

MAKER = "Hilum"
Kind = Literal["segmentation", "report"]

_SERIES_NUMBERS: dict[Kind, int] = {"segmentation": 9001, "report": 9002}  # beyond those that scanners give
LONG = 64  # characters of LO


@dataclass(frozen=True)
class Making:
    """What all objects of one call share.

    Attributes:
        model: Whose predictions they are.
        at: When they are made.
    """

    model: Identity
    at: datetime

    def algorithm(self) -> AlgorithmIdentificationSequence:
        """Return how an object names the algorithm (PS3.3 section 10.16)."""
        return AlgorithmIdentificationSequence(
            name=MAKER,
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
            source=MAKER,
            parameters={"study": self.model.name[:LONG], "model_sha256": self.model.sha256},
        )

    def algorithm_in_report(self) -> AlgorithmIdentification:
        """Return how a report names it (PS3.16 TID 4019)."""
        parameters = [f"study: {self.model.name}"[:LONG], f"model_sha256: {self.model.sha256}"]
        return AlgorithmIdentification(
            name=MAKER, version=__version__, parameters=parameters, manufacturer=MAKER
        )

    def common(self, source: DicomSource, kind: Kind, facts: list[Any]) -> dict[str, Any]:
        """Return what highdicom is told of series, instance and equipment, whatever the object."""
        names = [self.model.sha256, __version__, source.series_uid, source.study_uid]
        number = source.attributes.get("00200013", {}).get("Value", [1])[0]
        return {
            "series_instance_uid": derived_uid(f"{kind} series", *names),
            "series_number": _SERIES_NUMBERS[kind],
            "series_description": f"{MAKER} {self.model.name}"[:LONG],
            "sop_instance_uid": derived_uid(kind, *names, *facts),
            "instance_number": number if isinstance(number, int) and number > 0 else 1,
            "manufacturer": MAKER,
            "manufacturer_model_name": MAKER,
            "software_versions": __version__,
            "device_serial_number": self.model.sha256[:16],
            "specific_character_set": UNICODE,
            "content_date": self.at.date(),
            "content_time": self.at.time(),
        }


def finish(made: Dataset, making: Making) -> None:
    """Date an object, and what highdicom says of its own share in it."""
    made.InstanceCreationDate = making.at.strftime("%Y%m%d")
    made.InstanceCreationTime = making.at.strftime("%H%M%S")
    for equipment in made.get("ContributingEquipmentSequence") or ():
        equipment.ContributionDateTime = making.at.strftime("%Y%m%d%H%M%S")
