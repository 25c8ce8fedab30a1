"""Masks and boxes against shapes that can be computed by hand."""

import csv
import json
import shutil
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.annotations.grid import Grid, place
from hilum.client.intake.annotations.marks import on_grid
from hilum.client.intake.annotations.polygon import filled
from hilum.client.intake.annotations.targets import Targets, the_one_that_fits
from hilum.client.intake.formats.naming import Code, LabelMap, read_label_map
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue, Item
from hilum.client.state.workspace import Workspace
from hilum.common.errors import ConfigError, DataError
from hilum.common.progress import NullProgress
from nifti_files import read_nifti

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


@pytest.fixture(scope="module")
def made() -> dict[str, Site]:
    """Sites that were made already: each test works on a copy."""
    return {}


@pytest.fixture(params=["axial", "oblique"])
def site(request, tmp_path, tmp_path_factory, dicom, made):
    if request.param not in made:
        rotation = np.eye(3) if request.param == "axial" else OBLIQUE
        made[request.param] = make_site(tmp_path_factory.mktemp(request.param), dicom, rotation)
    first = made[request.param]
    shutil.copytree(first.folder.parent, tmp_path, dirs_exist_ok=True)
    workspace = Workspace(tmp_path / "state")
    return Site(tmp_path / "annotations", workspace, deepcopy(first.datasets), first.affine)


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


# DICOM SEG


def test_a_segment_comes_back_voxel_for_voxel_whatever_the_order_of_its_frames(site):
    mask = ball(site.affine)
    order = np.random.default_rng(1).permutation(SHAPE[0])
    write_seg(site.folder / "a.dcm", [site.datasets[k] for k in order], mask[order])
    report = site.annotate()
    assert (report.files, report.annotations, report.masks, report.images, report.skipped) == (1, 1, 1, 1, {})
    np.testing.assert_array_equal(site.masks()["SCT:10200004"], mask)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_each_segment_is_a_mask_of_its_own(site, kind):
    first, second = ball(site.affine, radius_mm=4), ball(site.affine, radius_mm=4, centre=(0.2, 0.2, 0.2))
    both = np.stack([first, second], axis=3)
    if kind == "LABELMAP":
        both = (first + 2 * (second & ~first)).astype(np.uint8)[..., None]
        both = np.concatenate([both == 1, both == 2], axis=3)
    write_seg(site.folder / "a.dcm", site.datasets[:-1], both, kind=kind)
    report = site.annotate()
    assert report.masks == 2
    found = sorted((m.sum() for m in site_mask_arrays(site)), reverse=True)
    assert found == sorted((both[..., 0].sum(), both[..., 1].sum()), reverse=True)


def site_mask_arrays(site):
    cache = ArrayCache(site.workspace.masks)
    return [
        on_grid(one, cache.get(one.content_sha256), site.item.shape)
        for one in site.catalogue.annotations(kind="mask")
    ]


def test_a_fractional_segment_is_cut_at_one_half_and_says_so(site):
    share = np.where(ball(site.affine, radius_mm=9), 0.4, 0.0)
    share[ball(site.affine, radius_mm=5)] = 0.6
    write_seg(site.folder / "a.dcm", site.datasets[:-1], share, kind="FRACTIONAL", max_fractional_value=200)
    site.annotate()
    assert [one.source for one in site.catalogue.annotations()] == ["seg_fractional"]
    np.testing.assert_array_equal(site.masks()["SCT:10200004"], ball(site.affine, radius_mm=5))


def test_a_label_map_in_rle_is_read(site):
    mask = ball(site.affine)
    write_seg(
        site.folder / "a.dcm", site.datasets[:-1], mask, kind="LABELMAP", transfer_syntax_uid=RLELossless
    )
    site.annotate()
    np.testing.assert_array_equal(site.masks()["SCT:10200004"], mask)


def test_a_segment_on_a_radiograph_is_tied_by_its_instance(site):
    image = site.datasets[-1]
    for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        setattr(image, name, "")
    image.ReferringPhysicianName = ""
    mask = np.zeros((1, 50, 60), bool)
    mask[0, 10:20, 30:45] = True
    write_seg(site.folder / "a.dcm", [image], mask)
    assert site.annotate().skipped == {}
    (one,) = site.catalogue.annotations()
    assert one.place == (10, 30)
    assert ArrayCache(site.workspace.masks).get(one.content_sha256).shape == (10, 15)


def test_a_seg_of_a_series_that_is_not_indexed_is_counted(site, tmp_path, dicom):
    (tmp_path / "other").mkdir()
    other = make_site(tmp_path / "other", dicom, np.eye(3))
    write_seg(site.folder / "a.dcm", other.datasets[:-1], ball(other.affine))
    report = site.annotate()
    assert report.annotations == 0
    assert report.skipped == {"annotates_unknown_image": 1}


@pytest.mark.parametrize("moved", ["position", "spacing", "gap", "turned"])
def test_a_seg_on_another_grid_than_its_image_is_refused(site, moved):
    seg = write_seg(site.folder / "a.dcm", site.datasets[:-1], ball(site.affine))
    shared = seg.SharedFunctionalGroupsSequence[0]
    if moved == "position":
        for groups in seg.PerFrameFunctionalGroupsSequence:
            plane = groups.PlanePositionSequence[0]
            plane.ImagePositionPatient = [
                plane.ImagePositionPatient[0] + 0.3,
                *plane.ImagePositionPatient[1:],
            ]
    elif moved == "spacing":
        shared.PixelMeasuresSequence[0].PixelSpacing = [0.81, 0.7]
    elif moved == "gap":
        shared.PixelMeasuresSequence[0].SpacingBetweenSlices = 3.0
    else:
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 0.6, 0.8, 0.6, 0.64, -0.48]
    seg.save_as(site.folder / "a.dcm")
    assert site.annotate().skipped == {"annotation_off_grid": 1}


def test_a_seg_that_is_cut_short_or_lies_about_its_size_is_counted(site):
    path = site.folder / "a.dcm"
    seg = write_seg(path, site.datasets[:-1], ball(site.affine))
    whole = path.read_bytes()
    for length in (200, 1000, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        report = site.annotate()
        assert report.annotations == 0
        assert sum(report.skipped.values()) == 1
    seg.Rows = seg.Columns = 16_000
    seg.save_as(path)
    assert site.annotate().skipped == {"truncated_pixels": 1}


@pytest.mark.parametrize("kind", ["seg", "rtstruct", "nifti", "gzipped nifti"])
def test_every_mutant_of_an_annotation_gives_an_annotation_or_a_reason(site, kind):
    suffix = {"nifti": ".nii", "gzipped nifti": ".nii.gz"}.get(kind, "")
    path = site.folder / f"whole{suffix}"
    mask = ball(site.affine, radius_mm=3)
    if kind == "seg":
        write_seg(path, site.datasets[:-1], mask)
    elif kind == "rtstruct":
        write_rtstruct(path, site, [points_mm(site.affine, 5, circle(5, count=30))], code=LIVER_CODE)
    else:
        write_nifti(path, mask, site.affine)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    end = min(len(whole), 8000)
    for number in range(40):
        mutant = bytearray(whole)
        for at in rng.integers(8, end, 8):
            mutant[at] = rng.integers(256)
        (site.folder / f"{number}{suffix}").write_bytes(mutant)
    path.unlink()
    if suffix:
        series = site.datasets[0].SeriesInstanceUID
        rows = "".join(f"{number}{suffix},{series}\n" for number in range(40))
        (site.folder / "ties.csv").write_text(f"file,series_instance_uid\n{rows}")
    report = site.annotate()
    assert report.files == 40 + bool(suffix)
    assert report.annotations + sum(report.skipped.values()) >= 40
    assert "annotates_unknown_image" not in report.skipped or not suffix
    assert "decoder_died" not in report.skipped


def test_the_side_of_a_structure_is_part_of_its_code(site):
    both = np.stack([ball(site.affine, radius_mm=4), ball(site.affine, radius_mm=5)], axis=3)
    seg = write_seg(site.folder / "a.dcm", site.datasets[:-1], both, code=codes.SCT.Kidney)
    for segment, side in zip(seg.SegmentSequence, (codes.SCT.Left, codes.SCT.Right), strict=True):
        concept = highdicom.sr.CodedConcept(side.value, side.scheme_designator, side.meaning)
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [concept]
    seg.save_as(site.folder / "a.dcm")
    site.annotate()
    assert set(site.masks()) == {"SCT:64033007+SCT:7771000", "SCT:64033007+SCT:24028007"}
    site.annotate(labels=LabelMap({"sct:64033007+sct:7771000": "kidney-left", "sct:64033007": "kidney"}))
    assert set(site.masks()) == {"kidney-left", "kidney"}


def test_the_same_annotation_twice_is_taken_once(site):
    write_boxes(site.folder / "a.csv", [box_row(site)])
    write_boxes(site.folder / "b.csv", [box_row(site), box_row(site, x=3)])
    report = site.annotate()
    assert (report.boxes, report.skipped) == (2, {"duplicate_annotation": 1})


# RTSTRUCT


def circle(radius_px, centre=(20.3, 24.6), count=720, squeeze=1.0):
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.column_stack(
        [centre[0] + radius_px * np.sin(angle), centre[1] + squeeze * radius_px * np.cos(angle)]
    )


def test_the_contours_of_a_ball_fill_its_voxels(site):
    middle = np.array([0.5, 0.45, 0.55]) * (np.array(SHAPE) - 1)
    contours = []
    for plane in range(SHAPE[0]):
        off_mm = (plane - middle[0]) * SPACING_MM[0]
        if abs(off_mm) < 9:
            radius_px = np.sqrt(9**2 - off_mm**2) / SPACING_MM[1]
            outline = circle(radius_px, middle[1:], squeeze=SPACING_MM[1] / SPACING_MM[2])
            contours.append(points_mm(site.affine, plane, outline))
    write_rtstruct(site.folder / "a.dcm", site, contours, code=LIVER_CODE)
    assert site.annotate().skipped == {}
    found, true = site.masks()["SCT:10200004"], ball(site.affine)
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.998


def test_a_fine_circle_has_the_area_of_a_circle():
    found = filled(circle(180.0, (255.2, 250.7), 5000), (512, 512))
    rows, columns = np.indices((512, 512))
    true = np.hypot(rows - 255.2, columns - 250.7) <= 180
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9995
    assert found.sum() == pytest.approx(np.pi * 180**2, rel=1e-3)


def test_a_rectangle_between_pixel_centres_fills_exactly_those_inside():
    outline = np.array([[1.5, 2.5], [1.5, 6.5], [4.5, 6.5], [4.5, 2.5]])
    true = np.zeros((8, 9), bool)
    true[2:5, 3:7] = True
    for turn in range(4):
        np.testing.assert_array_equal(filled(np.roll(outline, turn, axis=0), (8, 9)), true)
    np.testing.assert_array_equal(filled(outline[::-1], (8, 9)), true)


def test_polygons_that_share_an_edge_through_pixel_centres_share_no_pixel_and_leave_no_gap():
    left = filled(np.array([[1, 1], [1, 4], [7, 4], [7, 1]], float), (9, 9))
    right = filled(np.array([[1, 4], [1, 7], [7, 7], [7, 4]], float), (9, 9))
    both = filled(np.array([[1, 1], [1, 7], [7, 7], [7, 1]], float), (9, 9))
    assert not (left & right).any()
    np.testing.assert_array_equal(left | right, both)


def test_a_polygon_that_leaves_the_image_is_cut_at_its_edge():
    found = filled(np.array([[-5, -5], [-5, 3.5], [20, 3.5], [20, -5]], float), (6, 8))
    true = np.zeros((6, 8), bool)
    true[:, :4] = True
    np.testing.assert_array_equal(found, true)


def test_a_keyhole_and_a_contour_inside_another_give_the_same_hole(site):
    outer = np.array([[5.3, 5.4], [5.3, 30.2], [25.6, 30.2], [25.6, 5.4]])
    inner = np.array([[10.1, 10.7], [10.1, 20.3], [18.9, 20.3], [18.9, 10.7]])
    keyhole = np.vstack([outer, outer[:1], inner, inner[:1]])
    true = np.zeros(SHAPE, bool)
    true[3, 6:26, 6:31] = True
    true[3, 11:19, 11:21] = False
    for contours in ([keyhole], [outer, inner], [outer, inner[::-1], outer]):
        drawn = [points_mm(site.affine, 3, outline) for outline in contours]
        write_rtstruct(site.folder / "a.dcm", site, drawn, code=LIVER_CODE)
        assert site.annotate().skipped == {}
        np.testing.assert_array_equal(site.masks()["SCT:10200004"], true)


def test_contours_within_half_a_slice_go_to_that_slice(site):
    write_rtstruct(site.folder / "a.dcm", site, [points_mm(site.affine, 6.4, circle(5))], code=LIVER_CODE)
    site.annotate()
    assert set(np.argwhere(site.masks()["SCT:10200004"])[:, 0]) == {6}


@pytest.mark.parametrize(
    ("planes", "shift"), [([-0.7], 0), ([SHAPE[0]], 0), ([5, 5.4], 0), ([5], 100), ([5], -100)]
)
def test_contours_off_the_grid_are_refused(site, planes, shift):
    contours = [points_mm(site.affine, plane, circle(5) + shift) for plane in planes]
    write_rtstruct(site.folder / "a.dcm", site, contours, code=LIVER_CODE)
    assert site.annotate().skipped == {"annotation_off_grid": 1}


def test_contours_that_cross_slices_are_refused(site):
    contour = points_mm(site.affine, 5, circle(5))
    contour[::2] += site.affine[:3, 0]
    write_rtstruct(site.folder / "a.dcm", site, [contour], code=LIVER_CODE)
    assert site.annotate().skipped == {"annotation_off_grid": 1}


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR"])
def test_open_contours_are_refused(site, kind):
    write_rtstruct(
        site.folder / "a.dcm", site, [points_mm(site.affine, 5, circle(5))], code=LIVER_CODE, kind=kind
    )
    assert site.annotate().skipped == {"unsupported_contour": 1}


def test_structures_of_an_unknown_series_and_broken_structure_sets_are_counted(site):
    contours = [points_mm(site.affine, 5, circle(5))]
    path = site.folder / "a.dcm"
    write_rtstruct(path, site, contours, code=LIVER_CODE, series=generate_uid())
    assert site.annotate().skipped == {"annotates_unknown_image": 1}
    write_rtstruct(path, site, contours, code=LIVER_CODE)
    whole = path.read_bytes()
    for length in (140, 300, len(whole) - 300):
        path.write_bytes(whole[:length])
        report = site.annotate()
        assert report.annotations == 0
        assert sum(report.skipped.values()) == 1


# Tilted


TILTS = {
    "rows": (np.eye(3), (0.5, 0.0)),
    "both ways": (np.eye(3), (-0.33, 0.21)),
    "oblique": (OBLIQUE, (0.45, -0.1)),
}


@pytest.fixture(params=TILTS)
def tilted(request, tmp_path_factory, dicom, made):
    """A tilted series with a bright ball, which the catalogue holds upright."""
    rotation, sideways_mm = TILTS[request.param]
    key = f"tilted {request.param}"
    if key not in made:
        made[key] = make_site(tmp_path_factory.mktemp("tilted"), dicom, rotation, sideways_mm, lesion=True)
    site = made[key]
    for path in site.folder.iterdir():
        path.unlink()
    assert json.loads(site.item.quality)["tilt_deg"] > 5
    assert site.item.shape != SHAPE
    return site


def overlap(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def check_lesion(site, mask):
    """The mask lies where the lesion lies in the patient, and where the upright volume shows it."""
    upright = np.array(site.item.affine).reshape(4, 4)
    index = np.indices(site.item.shape).reshape(3, -1)
    places_mm = upright[:3, :3] @ index + upright[:3, 3:]
    middle_mm = (
        site.affine[:3, :3] @ (np.array((0.5, 0.45, 0.55)) * (np.array(SHAPE) - 1)) + site.affine[:3, 3]
    )
    true = (np.linalg.norm(places_mm.T - middle_mm, axis=1) <= 9).reshape(site.item.shape)
    assert overlap(mask, true) > 0.97
    shown = ArrayCache(site.workspace.cache).get(site.item.content_sha256) > 600
    assert overlap(mask, shown) > 0.97  # contours are filled anew, masks are interpolated with the voxels
    found_mm = places_mm[:, mask.ravel()].mean(axis=1)
    np.testing.assert_allclose(found_mm, middle_mm, atol=0.1)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_a_segment_of_a_tilted_series_is_brought_upright_with_it(tilted, kind):
    mask = ball(tilted.affine)
    order = np.random.default_rng(1).permutation(SHAPE[0])
    more = {"max_fractional_value": 200} if kind == "FRACTIONAL" else {}
    shown = mask.astype(float) if kind == "FRACTIONAL" else mask
    write_seg(tilted.folder / "a.dcm", [tilted.datasets[k] for k in order], shown[order], kind=kind, **more)
    assert tilted.annotate().skipped == {}
    check_lesion(tilted, tilted.masks()["SCT:10200004"])


def test_a_segment_of_some_slices_of_a_tilted_series_is_brought_upright(tilted):
    mask = ball(tilted.affine)
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    write_seg(tilted.folder / "a.dcm", [tilted.datasets[k] for k in slices], mask[slices])
    assert tilted.annotate().skipped == {}
    check_lesion(tilted, tilted.masks()["SCT:10200004"])


def test_contours_on_a_tilted_series_are_filled_on_the_upright_grid(tilted):
    middle = np.array([0.5, 0.45, 0.55]) * (np.array(SHAPE) - 1)
    normal = np.cross(tilted.affine[:3, 2], tilted.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    contours = []
    for plane in range(SHAPE[0]):
        away_mm = (plane - middle[0]) * tilted.affine[:3, 0]
        off_mm = away_mm @ normal
        if abs(off_mm) < 9:
            radius_px = np.sqrt(9**2 - off_mm**2) / SPACING_MM[1]
            sideways_mm = [away_mm @ tilted.affine[:3, axis] / SPACING_MM[axis] for axis in (1, 2)]
            centre = middle[1:] - np.array(sideways_mm) / SPACING_MM[1:]
            outline = circle(radius_px, centre, squeeze=SPACING_MM[1] / SPACING_MM[2])
            contours.append(points_mm(tilted.affine, plane, outline))
    write_rtstruct(tilted.folder / "a.dcm", tilted, contours, code=LIVER_CODE)
    assert tilted.annotate().skipped == {}
    check_lesion(tilted, tilted.masks()["SCT:10200004"])


@pytest.mark.parametrize("flips", [(1, 1, 1), (1, -1, 1), (-1, 1, -1)])
def test_a_nifti_mask_on_the_slices_of_a_tilted_series_is_brought_upright(tilted, flips):
    write_nifti(tilted.folder / series_name(tilted), ball(tilted.affine), tilted.affine, flips=flips)
    assert tilted.annotate().skipped == {}
    check_lesion(tilted, tilted.masks()["1"])


def test_a_nifti_mask_on_the_upright_volume_of_a_tilted_series_is_kept_as_it_is(tilted):
    upright = np.array(tilted.item.affine).reshape(4, 4)
    mask = np.zeros(tilted.item.shape, bool)
    mask[5:9, 10:20, 12:30] = True
    write_nifti(tilted.folder / series_name(tilted), mask, upright)
    assert tilted.annotate().skipped == {}
    np.testing.assert_array_equal(tilted.masks()["1"], mask)


def test_a_mask_that_denies_the_tilt_is_refused(tilted):
    straight = tilted.affine.copy()
    normal = np.cross(straight[:3, 2], straight[:3, 1])
    straight[:3, 0] = normal / np.linalg.norm(normal) * SPACING_MM[0]
    write_nifti(tilted.folder / series_name(tilted), ball(tilted.affine), straight)
    assert tilted.annotate().skipped == {"annotation_off_grid": 1}


# NIfTI


@pytest.mark.parametrize(
    ("order", "flips"),
    [((2, 1, 0), (1, 1, 1)), ((2, 1, 0), (-1, -1, 1)), ((0, 1, 2), (1, -1, 1)), ((1, 2, 0), (-1, 1, -1))],
)
def test_a_nifti_mask_keeps_every_voxel_in_its_place_whatever_its_axes(site, order, flips):
    values = ball(site.affine).astype(np.uint8)
    values[2:5, 3:9, 4:8] = 2
    write_nifti(site.folder / "masks" / series_name(site), values, site.affine, axes_order=order, flips=flips)
    report = site.annotate()
    assert (report.masks, report.skipped) == (2, {})
    for value in (1, 2):
        np.testing.assert_array_equal(site.masks()[str(value)], values == value)


def test_the_label_map_names_the_values_of_a_nifti_mask(site):
    write_nifti(site.folder / series_name(site), ball(site.affine), site.affine, dtype=np.float32)
    site.annotate(labels=LabelMap({"1": "tumour"}))
    assert list(site.masks()) == ["tumour"]


def test_a_series_converted_to_nifti_reads_as_the_catalogue_has_it(site):
    volume = np.stack([ds.pixel_array for ds in site.datasets[:-1]])
    # As dcm2niix lays it out: columns, rows from the bottom up, slices.
    write_nifti(site.folder / "a.nii.gz", volume, site.affine, flips=(1, -1, 1), dtype=np.int16)
    file = read_nifti(site.folder / "a.nii.gz")
    np.testing.assert_array_equal(
        file.volumes[0], ArrayCache(site.workspace.cache).get(site.item.content_sha256)
    )
    np.testing.assert_allclose(file.affine.ravel(), site.item.affine, atol=1e-4)
    np.testing.assert_allclose(file.spacing_mm, site.item.spacing_mm, rtol=1e-5)


@pytest.mark.parametrize("columns", ["mask,series_instance_uid", "file,series_instance_uid"])
def test_a_table_ties_a_mask_of_any_name(site, columns):
    write_nifti(site.folder / "m" / "x.nii", ball(site.affine), site.affine)
    (site.folder / "ties.csv").write_text(f"{columns}\nm/x.nii,{site.datasets[0].SeriesInstanceUID}\n")
    report = site.annotate()
    assert (report.files, report.masks, report.skipped) == (2, 1, {})


@pytest.mark.parametrize("wrong", ["shifted", "scaled", "cropped", "mirrored"])
def test_a_nifti_mask_on_another_grid_is_refused(site, wrong):
    affine, mask = site.affine.copy(), ball(site.affine)
    if wrong == "shifted":
        affine[:3, 3] += affine[:3, 0] / SPACING_MM[0] * 0.3
    elif wrong == "scaled":
        affine[:3, 2] *= 1.02
    elif wrong == "cropped":
        mask = mask[:-1]
    else:
        affine[:3, 1] *= -1
    write_nifti(site.folder / series_name(site), mask, affine)
    assert site.annotate().skipped == {"annotation_off_grid": 1}


def test_a_nifti_image_is_no_mask_and_an_untied_one_marks_nothing(site):
    values = np.random.default_rng(0).normal(size=SHAPE)
    write_nifti(site.folder / series_name(site), values, site.affine, dtype=np.float32)
    write_nifti(site.folder / "other.nii", ball(site.affine), site.affine)
    assert site.annotate().skipped == {"annotates_unknown_image": 1, "malformed_annotation": 1}


@pytest.mark.parametrize("flip", [1, -1])
def test_a_nifti_mask_on_a_radiograph_has_its_instance_as_name(site, flip):
    """As `hilum phantom` writes masks."""
    values = np.zeros((60, 50, 1), np.uint8)
    values[30:45, 10:20] = 1
    image = nibabel.Nifti1Image(values, np.diag([-0.2, -0.2 * flip, 1.0, 1.0]))
    site.folder.mkdir(exist_ok=True)
    nibabel.save(image, site.folder / f"{site.datasets[-1].SOPInstanceUID}.nii.gz")
    report = site.annotate()
    assert (report.masks, report.skipped) == (1, {})
    (one,) = site.catalogue.annotations()
    assert one.place == (10 if flip > 0 else 50 - 20, 30)  # the other header has its rows from the bottom up
    assert ArrayCache(site.workspace.masks).get(one.content_sha256).shape == (10, 15)


@pytest.mark.parametrize("wrong", ["size", "aslant", "slice of a volume"])
def test_a_nifti_mask_that_does_not_fit_a_radiograph_is_refused(site, wrong):
    values = np.ones((60, 49 if wrong == "size" else 50, 1), np.uint8)
    affine = np.diag([-0.2, -0.2, 1.0, 1.0])
    affine[1, 0] = 0.05 if wrong == "aslant" else 0.0
    image = site.datasets[0 if wrong == "slice of a volume" else -1]
    site.folder.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), site.folder / f"{image.SOPInstanceUID}.nii.gz")
    reason = "annotates_unknown_image" if wrong == "slice of a volume" else "annotation_off_grid"
    assert site.annotate().skipped == {reason: 1}


# Boxes


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


def test_boxes_of_a_table_are_tied_by_uid(site):
    write_boxes(site.folder / "boxes.csv", [box_row(site), box_row(site, x=40, w=20.6)])
    report = site.annotate(labels=LabelMap({"mass": "opacity"}))
    assert (report.boxes, report.images, report.skipped) == (2, 1, {})
    found = sorted((one.label, one.place) for one in site.catalogue.annotations(kind="box"))
    assert found == [("opacity", (10.5, 4.0, 20.0, 12.25)), ("opacity", (40.0, 4.0, 20.0, 12.25))]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sop_instance_uid": "1.2.3"}, "annotates_unknown_image"),
        ({"sop_instance_uid": ""}, "annotates_unknown_image"),
        ({"x": "a"}, "malformed_annotation"),
        ({"x": "nan"}, "malformed_annotation"),
        ({"w": 0}, "empty_annotation"),
        ({"x": 55}, "box_outside_image"),
        ({"y": -3}, "box_outside_image"),
        ({"finding": "x" * 65}, "label_not_mapped"),
        ({"image_width": 100, "image_height": 50}, "annotation_off_grid"),
    ],
)
def test_a_wrong_box_is_counted_under_its_reason(site, changes, reason):
    write_boxes(site.folder / "boxes.csv", [box_row(site, **changes)])
    report = site.annotate()
    assert (report.annotations, report.skipped) == (0, {reason: 1})


def test_a_box_on_a_slice_is_refused(site):
    write_boxes(site.folder / "boxes.csv", [box_row(site, sop_instance_uid=site.datasets[0].SOPInstanceUID)])
    assert site.annotate().skipped == {"box_on_volume": 1}


def coco(site, **changes):
    one = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 4, 20, 12], **changes.pop("annotation", {})}
    image = {"id": 7, "file_name": f"{site.datasets[-1].SOPInstanceUID}.png", "width": 60, "height": 50}
    return {
        "images": [{**image, **changes.pop("image", {})}],
        "categories": [{"id": 3, "name": "mass"}],
        "annotations": [one],
        **changes,
    }


def test_boxes_of_a_coco_file_are_tied_by_file_name(site):
    (site.folder / "a.json").write_text(json.dumps(coco(site)))
    assert site.annotate().skipped == {}
    (one,) = site.catalogue.annotations()
    assert (one.kind, one.label, one.place, one.source) == ("box", "mass", (10, 4, 20, 12), "coco")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"annotation": {"bbox": [1, 2, 3]}}, "malformed_annotation"),
        ({"annotation": {"bbox": ["a", None, {}, []]}}, "malformed_annotation"),
        ({"annotation": {"bbox": [0, 0, 10**400, 1]}}, "malformed_annotation"),
        ({"annotation": {"image_id": [7]}}, "malformed_annotation"),
        ({"annotation": {"category_id": 9}}, "malformed_annotation"),
        ({"image": {"file_name": 3}}, "malformed_annotation"),
        ({"image": {"file_name": "../../x.png"}}, "annotates_unknown_image"),
        ({"image": {"width": 61}}, "annotation_off_grid"),
        ({"images": {"id": 7}}, "malformed_annotation"),
        ({"annotations": ["a"]}, "malformed_annotation"),
        ({"categories": None}, "malformed_annotation"),
    ],
)
def test_a_coco_file_of_wrong_types_is_counted(site, changes, reason):
    (site.folder / "a.json").write_text(json.dumps(coco(site, **changes)))
    assert site.annotate().skipped == {reason: 1}


def test_files_that_are_no_annotations_are_counted(site):
    (site.folder / "a.json").write_text("[" * 100_000)
    (site.folder / "b.json").write_text('{"a": 1}')
    (site.folder / "c.csv").write_text("a,b\n1,2\n")
    (site.folder / "d.csv").write_bytes(b"\xff\xfe\x00")
    (site.folder / "e.txt").write_text("x")
    (site.folder / "f.nii.gz").write_bytes(b"\x1f\x8b\x08")
    assert site.annotate().skipped == {
        "malformed_annotation": 2,
        "not_an_annotation": 3,
        "annotates_unknown_image": 1,
    }


# Names


def test_text_of_a_dicom_object_enters_only_through_the_map(site):
    private = highdicom.sr.CodedConcept("ZZPHI-1", "99ZZPHI", "ZZPHI")
    write_seg(site.folder / "a.dcm", site.datasets[:-1], ball(site.affine), code=private)
    write_rtstruct(site.folder / "b.dcm", site, [points_mm(site.affine, 5, circle(5))])
    assert site.annotate().skipped == {"label_not_mapped": 2}
    site.annotate(labels=LabelMap({"zzphi label": "organ", "zzphi roi": "target"}))
    assert set(site.masks()) == {"organ", "target"}
    site.annotate(labels=LabelMap({"99zzphi:zzphi-1": "by code", "zzphi roi": "target"}))
    assert set(site.masks()) == {"by code", "target"}
    state = [path for path in site.workspace.folder.rglob("*") if path.is_file()]
    assert not [path for path in state if b"ZZPHI" in path.read_bytes().upper()]


@pytest.mark.parametrize(
    "code", [Code("SCT", "ZZPHI"), Code("SCT", "19500231"), Code("99X", "10200004"), Code("DCM", "123")]
)
def test_what_only_looks_like_a_code_does_not_pass(code):
    with pytest.raises(Skip) as caught:
        LabelMap().of_object("", code)
    assert caught.value.reason == Reason.UNMAPPED_LABEL


def test_a_label_map_folds_case_and_spaces(tmp_path):
    path = tmp_path / "map.toml"
    path.write_text('[labels]\n"Left  LUNG" = "lung-left"\n')
    assert read_label_map(path).of_object(" left lung ", None) == "lung-left"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("labels = 3", "one table"),
        ("x", "not TOML"),
        ("[labels]\n", "at least one line"),
        ("[labels]\na = 3\n", "entry 1"),
        ('[labels]\na = "b"\nA = "c"\n', "differ only"),
        ('[other]\na = "b"\n', "one table"),
    ],
)
def test_a_wrong_label_map_says_what_to_write(tmp_path, text, words):
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_label_map(path)


# The catalogue


def test_a_second_call_changes_nothing_and_what_is_gone_goes(site):
    write_seg(site.folder / "a.dcm", site.datasets[:-1], ball(site.affine))
    write_boxes(site.folder / "boxes.csv", [box_row(site)])
    site.annotate()
    first = site.catalogue.annotations()
    site.annotate()
    assert site.catalogue.annotations() == first
    assert len(first) == 2
    (site.folder / "a.dcm").unlink()
    site.annotate()
    assert [one.kind for one in site.catalogue.annotations()] == ["box"]
    assert not list(site.workspace.masks.rglob("*.npy"))


def test_another_folder_leaves_the_annotations_of_the_first(site, tmp_path):
    write_boxes(site.folder / "boxes.csv", [box_row(site)])
    site.annotate()
    other = tmp_path / "more"
    other.mkdir()
    write_boxes(other / "boxes.csv", [box_row(site, x=30)])
    site.annotate(other)
    assert len(site.catalogue.annotations()) == 2


def test_annotations_of_a_changed_or_removed_image_are_left_out_and_indexing_keeps_the_masks(site, tmp_path):
    write_seg(site.folder / "a.dcm", site.datasets[:-1], ball(site.affine))
    site.annotate()
    index_archive(tmp_path / "dicom", site.workspace, NullProgress())
    assert len(site_mask_arrays(site)) == 1
    last = max((tmp_path / "dicom").glob("[0-9]*.dcm"), key=lambda path: pydicom.dcmread(path).InstanceNumber)
    last.unlink()
    index_archive(tmp_path / "dicom", site.workspace, NullProgress())
    assert site.catalogue.annotations() == []


def test_a_site_without_an_index_and_a_missing_folder_are_errors_of_one_line(site, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        site.annotate(tmp_path / "absent")
    with pytest.raises(DataError, match="is empty"):
        site.annotate()
    write_boxes(site.folder / "boxes.csv", [box_row(site)])
    with pytest.raises(DataError, match="nothing is indexed"):
        annotate(site.folder, Workspace(tmp_path / "new"), LabelMap(), NullProgress())


def test_an_instance_that_is_known_to_be_of_one_volume_tells_volumes_of_a_series_apart(site):
    names, catalogue = site.workspace.pseudonyms(), site.catalogue
    sop = str(site.datasets[0].SOPInstanceUID)
    assert [item.item_key for item in Targets(catalogue, names).of_instances([sop])] == [site.item.item_key]
    twin = replace(site.item, item_key="twin")
    catalogue.record([], [twin])
    [row] = [row for row in catalogue.files().values() if row.sop_key == names.of("sop", sop)]
    for item_key, expected in (
        (site.item.item_key, {site.item.item_key}),
        ("twin", {"twin"}),
        ("", {site.item.item_key, "twin"}),
    ):
        catalogue.record([replace(row, item_key=item_key)])
        assert {item.item_key for item in Targets(catalogue, names).of_instances([sop])} == expected
    with pytest.raises(Skip) as caught:
        the_one_that_fits([site.item, site.item], lambda item: item)
    assert caught.value.reason == Reason.AMBIGUOUS_IMAGE


def test_an_array_that_covers_a_part_of_the_grid_is_laid_where_it_belongs():
    affine = np.diag([2.0, 0.5, 0.5, 1.0])
    part = affine.copy()
    part[:3, 3] = affine[:3, :3] @ (2, 3, 4)
    found = place(part, (2, 2, 2), Grid("k", (6, 8, 9), affine))
    assert found.start == (2, 3, 4)
    with pytest.raises(Skip):
        place(part, (5, 2, 2), Grid("k", (6, 8, 9), affine))


def test_the_command_reports_counts_and_reasons(site, run_hilum, tmp_path):
    home = tmp_path / "hilum-home"
    assert run_hilum("site", "index", tmp_path / "dicom", "--home", home, "--json").returncode == 0
    write_seg(site.folder / "a.dcm", site.datasets[:-1], ball(site.affine))
    (site.folder / "junk.txt").write_text("x")
    (tmp_path / "map.toml").write_text('[labels]\n"SCT:10200004" = "liver"\n')
    words = ("site", "annotate", site.folder, "--labels", tmp_path / "map.toml", "--home", home)
    done = run_hilum(*words, "--json")
    assert json.loads(done.stdout) == {
        "files": 2,
        "annotations": 1,
        "masks": 1,
        "boxes": 0,
        "images": 1,
        "skipped": {"not_an_annotation": 1},
    }
    assert "a file that holds no masks or boxes" in run_hilum(*words).stdout
    (site.folder / "a.dcm").unlink()
    failed = run_hilum(*words)
    assert failed.returncode == 3
    assert len(failed.stderr.strip().splitlines()) <= 2
    assert "ZZPHI" not in failed.stdout + failed.stderr
