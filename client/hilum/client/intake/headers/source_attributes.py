"""What an object made from an image takes over of it: whose it is, and of which study (PS3.3 sections C.7.1 and C.7.2).

Read for predictions alone, which stay in the hospital. Values are decoded to Unicode, so that one character set does for all.
"""

from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from hilum.client.intake.headers.pydicom_tags import whole_dataset
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.silence import silent_readers
from hilum.client.intake.transfer_syntaxes import DEFLATED

KEYWORDS = frozenset(
    {
        # Patient, and what narrows who that is.
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "TypeOfPatientID",
        "IssuerOfPatientIDQualifiersSequence",
        "OtherPatientIDsSequence",
        "PatientBirthDate",
        "PatientBirthTime",
        "PatientSex",
        "PatientSpeciesDescription",
        "PatientSpeciesCodeSequence",
        "PatientBreedDescription",
        "PatientBreedCodeSequence",
        "BreedRegistrationSequence",
        "ResponsiblePerson",
        "ResponsiblePersonRole",
        "ResponsibleOrganization",
        "EthnicGroup",
        "PatientComments",
        "PatientIdentityRemoved",
        "DeidentificationMethod",
        "DeidentificationMethodCodeSequence",
        # Study.
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "StudyDescription",
        "AccessionNumber",
        "IssuerOfAccessionNumberSequence",
        "ReferringPhysicianName",
        "ReferringPhysicianIdentificationSequence",
        "PhysiciansOfRecord",
        "NameOfPhysiciansReadingStudy",
        "ProcedureCodeSequence",
        "ReferencedStudySequence",
        # The patient at the time of the study.
        "PatientAge",
        "PatientSize",
        "PatientWeight",
        "AdmissionID",
        "AdmittingDiagnosesDescription",
        # Clinical trials.
        "ClinicalTrialSponsorName",
        "ClinicalTrialProtocolID",
        "ClinicalTrialProtocolName",
        "ClinicalTrialSiteID",
        "ClinicalTrialSiteName",
        "ClinicalTrialSubjectID",
        "ClinicalTrialSubjectReadingID",
        "ClinicalTrialTimePointID",
        "ClinicalTrialTimePointDescription",
        # Of the series and the image: what tells where it was made, and its place in its series.
        "BodyPartExamined",
        "Laterality",
        "PatientPosition",
        "PatientOrientation",
        "PositionReferenceIndicator",
        "TimezoneOffsetFromUTC",
        "SeriesNumber",
        "SeriesDescription",
        "InstanceNumber",
        "LossyImageCompression",
        "LossyImageCompressionRatio",
        "LossyImageCompressionMethod",
    }
)


def read_source_attributes(path: Path, syntax: str) -> dict[str, Any]:
    """Return the attributes in `KEYWORDS` that a file has, as DICOM JSON (PS3.18 annex F).

    It is not safe against a hostile file by itself, so it belongs in a decoding process.

    Raises:
        Skip: If the header is broken.
    """
    found = whole_dataset(path, deflated=syntax == DEFLATED)
    taken = Dataset()
    try:
        with silent_readers():
            for keyword in KEYWORDS:
                if keyword in found:
                    taken[keyword] = found[keyword]
            return taken.to_json_dict()
    except MemoryError:
        raise
    except Exception:
        # pydicom raises what it happens to raise on values that break the standard.
        raise Skip(Reason.DAMAGED_HEADER) from None
