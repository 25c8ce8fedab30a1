"""Synthetic DICOM archives of several hospitals, in the layout that a simulation reads.

    <folder>/site-0/dicom/*.dcm, labels.csv, boxes.csv, masks/<SOPInstanceUID>.nii.gz

Sites differ as hospitals do: vendor, modality, bit depth, photometric interpretation, transfer syntax, tone curve and
share of patients with findings. Everything that a DICOM file asks for is made up; the patients do not exist.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from hilum.common.output_folder import check_output_folder
from hilum.common.progress import progress_bar
from hilum.common.seeding import derive, generator
from hilum.simulations.phantom_image import Chest, draw_chest

_CR, _DX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"
_FIELD_MM = 400.0  # edge of the detector
_MAX_NODULES = 3


@dataclass(frozen=True)
class Vendor:
    """How one make of scanner writes its files.

    Attributes:
        inverted: MONOCHROME1.
        gamma: Of the tone curve.
    """

    name: str
    model: str
    modality: str
    sop_class: str
    bits: int
    inverted: bool
    gamma: float
    syntax: UID


VENDORS = (
    Vendor("Aster Imaging", "Clarity 400", "DX", _DX, 12, False, 1.0, ExplicitVRLittleEndian),
    Vendor("Boreal Medical", "PlateReader 7", "CR", _CR, 10, True, 0.7, ImplicitVRLittleEndian),
    Vendor("Cygnus Health", "DigiChest", "DX", _DX, 14, False, 1.4, RLELossless),
)


def write_phantoms(
    folder: Path, *, sites: int, patients: int, size: int, seed: int
) -> dict[str, dict[str, int]]:
    """Write the archives.

    Args:
        folder: New or empty.
        sites: How many hospitals.
        patients: Per hospital; every fourth has a second image.
        size: Edge in pixels.
        seed: The same seed writes the same bytes.

    Returns:
        Files, patients and positive patients of each site.

    Raises:
        RunError: If the folder is not empty.
    """
    check_output_folder(folder, called="phantom folder")
    counts = {}
    with progress_bar("drawing phantoms", sites * patients) as progress:
        for site in range(sites):
            # As in the real archives, findings are more frequent at the first site than at the last.
            share = 0.6 if sites == 1 else 0.6 - 0.2 * site / (sites - 1)
            counts[f"site-{site}"] = _write_site(folder / f"site-{site}", site, patients, size, share, seed)
            progress.advance((site + 1) * patients)
    return counts


def _write_site(folder: Path, site: int, patients: int, size: int, share: float, seed: int) -> dict[str, int]:
    vendor = VENDORS[site % len(VENDORS)]
    labels: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    (folder / "dicom").mkdir(parents=True)
    (folder / "masks").mkdir()
    positives = _chosen(patients, share, generator(seed, "phantom", site))
    for patient in range(patients):
        rng = generator(seed, "phantom", site, patient)
        for image in range(2 if patient % 4 == 0 else 1):
            nodules = int(rng.integers(1, _MAX_NODULES + 1)) if patient in positives else 0
            chest = draw_chest(size, nodules, rng)
            dataset = _dataset(chest, vendor, site, patient, image, seed)
            _save(dataset, folder / "dicom" / f"{patient:05d}-{image}.dcm", vendor.syntax)
            common = {"sop_instance_uid": dataset.SOPInstanceUID, "patient": f"P{site}-{patient:05d}"}
            labels.append({**common, "label": int(patient in positives)})
            boxes += [{**common, "finding": "nodule", **_box(n.x, n.y, n.radius)} for n in chest.nodules]
            _save_mask(chest.mask, size, folder / "masks" / f"{dataset.SOPInstanceUID}.nii.gz")
    _write_csv(folder / "labels.csv", labels, ["sop_instance_uid", "patient", "label"])
    _write_csv(folder / "boxes.csv", boxes, ["sop_instance_uid", "patient", "finding", "x", "y", "w", "h"])
    return {"files": len(labels), "patients": patients, "positive": len(positives)}


def _chosen(patients: int, share: float, rng: np.random.Generator) -> set[int]:
    return set(rng.permutation(patients)[: round(share * patients)].tolist())


def _box(x: float, y: float, radius: float) -> dict[str, float]:
    return {
        "x": round(x - radius, 2),
        "y": round(y - radius, 2),
        "w": round(2 * radius, 2),
        "h": round(2 * radius, 2),
    }


def _dataset(chest: Chest, vendor: Vendor, site: int, patient: int, image: int, seed: int) -> Dataset:
    """Return a CR or DX image with the attributes that its standard module asks for (PS3.3 sections A.2 and A.26)."""
    full = (1 << vendor.bits) - 1
    shown = chest.image**vendor.gamma
    stored = np.rint((1 - shown if vendor.inverted else shown) * full).astype("<u2")
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID(vendor.sop_class)
    data.SOPInstanceUID = _uid(seed, "instance", site, patient, image)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.StudyInstanceUID = _uid(seed, "study", site, patient)
    data.SeriesInstanceUID = _uid(seed, "series", site, patient, image)
    data.PatientName, data.PatientID = f"PHANTOM^{site}^{patient:05d}", f"PHANTOM-{site}-{patient:05d}"
    data.PatientBirthDate, data.PatientSex = "19700101", "O"
    data.StudyDate, data.StudyTime, data.AccessionNumber, data.StudyID = "20200101", "120000", "PHANTOM", "1"
    data.InstitutionName, data.ReferringPhysicianName = f"PHANTOM HOSPITAL {site}", "PHANTOM^PHYSICIAN"
    data.Modality, data.Manufacturer, data.ManufacturerModelName = vendor.modality, vendor.name, vendor.model
    data.SeriesNumber, data.InstanceNumber = 1, image + 1
    data.ImageType, data.BodyPartExamined, data.ViewPosition = ["ORIGINAL", "PRIMARY"], "CHEST", "PA"
    data.PatientOrientation, data.BurnedInAnnotation, data.LossyImageCompression = ["L", "F"], "NO", "00"
    data.ImagerPixelSpacing = [_FIELD_MM / stored.shape[0]] * 2
    data.Rows, data.Columns, data.SamplesPerPixel = *stored.shape, 1
    data.PhotometricInterpretation = "MONOCHROME1" if vendor.inverted else "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = (
        16,
        vendor.bits,
        vendor.bits - 1,
        0,
    )
    data.WindowCenter, data.WindowWidth = (full + 1) / 2, full + 1
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OW"
    return data


def _uid(seed: int, *parts: str | int) -> UID:
    """Return a UID under the root for derived UUIDs (PS3.5 section B.2), the same for the same parts."""
    return UID(f"2.25.{derive(seed, 'uid', *parts)}")


def _save(dataset: Dataset, path: Path, syntax: UID) -> None:
    if syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def _save_mask(mask: npt.NDArray[np.uint8], size: int, path: Path) -> None:
    """Write one slice, first axis along columns as NIfTI has it."""
    spacing = _FIELD_MM / size
    affine = np.diag([-spacing, -spacing, 1.0, 1.0])
    image = nib.Nifti1Image(mask.T[:, :, None], affine)  # type: ignore[no-untyped-call]
    nib.save(image, path)


def _write_csv(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
