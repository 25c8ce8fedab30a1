"""A site with a CT series and a radiograph, and annotations of them as other programs write them."""

import csv
from dataclasses import dataclass
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.annotations.marks import on_grid
from hilum.client.intake.formats.naming import Code, LabelMap
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue, Item
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress

CT = "1.2.840.10008.5.1.4.1.1.2"
SHAPE, SPACING_MM = (24, 40, 48), (1.5, 0.8, 0.7)
LIVER = codes.SCT.Liver
OBLIQUE = np.linalg.qr(np.array([[0.9, 0.2, 0.3], [-0.1, 0.95, 0.2], [-0.3, -0.1, 0.9]]))[0]


def axes(rotation):
    """Directions of a row and of a column, and the normal that they make."""
    row, column = rotation[:, 0] * np.sign(rotation[0, 0]), rotation[:, 1] * np.sign(rotation[1, 1])
    return row, column, np.cross(row, column)


@dataclass
class Site:
    folder: Path
    workspace: Workspace
    datasets: list[Dataset]
    affine: np.ndarray

    @property
    def catalogue(self):
        return Catalogue(self.workspace.catalogue)

    @property
    def item(self) -> Item:
        return next(item for item in self.catalogue.items() if item.kind == "volume")

    def annotate(self, source=None, labels=None):
        return annotate(source or self.folder, self.workspace, labels or LabelMap(), NullProgress())

    def masks(self):
        cache = ArrayCache(self.workspace.masks)
        return {
            one.label: on_grid(one, cache.get(one.content_sha256), self.item.shape)
            for one in self.catalogue.annotations(kind="mask")
        }


def make_site(tmp_path, dicom, rotation, sideways_mm=(0.0, 0.0), lesion=False) -> Site:
    """A CT series and a radiograph; the slices' file order says nothing.

    Args:
        sideways_mm: How far each slice lies along the columns and along the rows from the one before.
        lesion: Whether the voxels of `ball` are bright.
    """
    row, column, normal = axes(rotation)
    origin = np.array([-30.0, 12.0, -50.0])
    affine = np.eye(4)
    affine[:3, :3] = np.stack([normal, column, row], axis=1) * SPACING_MM
    affine[:3, 0] += sideways_mm[0] * column + sideways_mm[1] * row
    affine[:3, 3] = origin
    bright = 1000 * ball(affine) if lesion else np.zeros(SHAPE)
    rng = np.random.default_rng(0)
    uids = {name: generate_uid() for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}
    datasets = [
        dicom(
            tmp_path / "dicom" / f"{(k * 7) % SHAPE[0]:03d}.dcm",
            (rng.integers(0, 200 if lesion else 999, SHAPE[1:]) + bright[k]).astype(np.int16),
            sop_class=CT,
            ImageOrientationPatient=[float(f"{v:.9f}") for v in (*row, *column)],
            ImagePositionPatient=[float(f"{v:.6f}") for v in origin + k * affine[:3, 0]],
            PixelSpacing=list(SPACING_MM[1:]),
            SliceThickness=SPACING_MM[0],
            PatientBirthDate="",
            PatientSex="",
            StudyDate="",
            StudyTime="",
            StudyID="",
            AccessionNumber="",
            ReferringPhysicianName="",
            PositionReferenceIndicator="",
            SeriesNumber=1,
            InstanceNumber=k + 1,
            **uids,
        )
        for k in range(SHAPE[0])
    ]
    datasets.append(dicom(tmp_path / "dicom" / "cr.dcm", rng.integers(0, 999, (50, 60)).astype(np.uint16)))
    workspace = Workspace(tmp_path / "state")
    index_archive(tmp_path / "dicom", workspace, NullProgress())
    folder = tmp_path / "annotations"
    folder.mkdir()
    return Site(folder, workspace, datasets, affine)


def ball(affine, shape=SHAPE, radius_mm=9.0, centre=(0.5, 0.45, 0.55)):
    """The voxels whose centre lies in a ball around a point of the volume, by distance in the patient."""
    index = np.indices(shape).reshape(3, -1)
    places_mm = affine[:3, :3] @ index + affine[:3, 3:]
    middle_mm = affine[:3, :3] @ (np.array(centre) * (np.array(shape) - 1)) + affine[:3, 3]
    return (np.linalg.norm(places_mm.T - middle_mm, axis=1) <= radius_mm).reshape(shape)


def write_seg(path, images, mask, kind="BINARY", code=LIVER, label="ZZPHI LABEL", **options):
    """(D, H, W) or (D, H, W, segments) in the order of `images`."""
    count = mask.shape[3] if mask.ndim == 4 else 1
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=n,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=code,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for n in range(1, count + 1)
    ]
    seg = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=mask,
        segmentation_type=highdicom.seg.SegmentationTypeValues[kind],
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="ZZPHI",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    seg.save_as(path)
    return seg


def write_rtstruct(path, site, contours, *, name="ZZPHI ROI", code=None, kind="CLOSED_PLANAR", series=None):
    """One region; contours are (N, 3) arrays of LPS points."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.SeriesInstanceUID, ds.StudyInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.Modality = "ZZPHI^NAME", "RTSTRUCT"
    referenced, study, frame = Dataset(), Dataset(), Dataset()
    referenced.SeriesInstanceUID = series or site.datasets[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = [referenced]
    frame.RTReferencedStudySequence = [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    roi = Dataset()
    roi.ROINumber, roi.ROIName = 4, name
    ds.StructureSetROISequence = [roi]
    drawn = Dataset()
    drawn.ReferencedROINumber = 4
    drawn.ContourSequence = []
    for points in contours:
        one = Dataset()
        one.ContourGeometricType, one.NumberOfContourPoints = kind, len(points)
        one.ContourData = [float(f"{v:.6f}") for v in np.asarray(points).ravel()]
        drawn.ContourSequence.append(one)
    ds.ROIContourSequence = [drawn]
    seen = Dataset()
    seen.ObservationNumber, seen.ReferencedROINumber = 1, 4
    if code is not None:
        concept = Dataset()
        concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = (
            code.value,
            code.scheme,
            "ZZPHI",
        )
        seen.RTROIIdentificationCodeSequence = [concept]
    ds.RTROIObservationsSequence = [seen]
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


LIVER_CODE = Code("SCT", "10200004")


def points_mm(affine, plane, outline):
    """(N, 2) rows and columns on one slice, as LPS points."""
    index = np.column_stack([np.full(len(outline), plane), outline, np.ones(len(outline))])
    return (affine @ index.T).T[:, :3]


def write_nifti(path, mask, affine_lps, *, axes_order=(2, 1, 0), flips=(1, 1, 1), dtype=np.uint8):
    """Lay a (D, H, W) mask out as (W, H, D) or otherwise, with the affine that keeps every voxel in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turned = np.eye(4)
    turned[:3, 3] = affine_lps[:3, 3]
    for new, (old, sign) in enumerate(zip(axes_order, flips, strict=True)):
        turned[:3, new] = sign * affine_lps[:3, old]
        if sign < 0:
            turned[:3, 3] += affine_lps[:3, old] * (mask.shape[old] - 1)
    array = mask.transpose(axes_order)[tuple(slice(None, None, sign) for sign in flips)]
    image = nibabel.Nifti1Image(array.astype(dtype), np.diag([-1, -1, 1, 1]) @ turned)
    image.header.set_sform(image.affine, 1)
    nibabel.save(image, path)


def series_name(site):
    return f"{site.datasets[0].SeriesInstanceUID}.nii.gz"


def site_mask_arrays(site):
    cache = ArrayCache(site.workspace.masks)
    return [
        on_grid(one, cache.get(one.content_sha256), site.item.shape)
        for one in site.catalogue.annotations(kind="mask")
    ]


def circle(radius_px, centre=(20.3, 24.6), count=720, squeeze=1.0):
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.column_stack(
        [centre[0] + radius_px * np.sin(angle), centre[1] + squeeze * radius_px * np.cos(angle)]
    )


def write_boxes(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def box_row(site, **changes):
    return {
        "sop_instance_uid": site.datasets[-1].SOPInstanceUID,
        "patient": "ZZPHI",
        "finding": "Mass",
        "x": "10.5",
        "y": 4,
        "w": 20,
        "h": 12.25,
        **changes,
    }
