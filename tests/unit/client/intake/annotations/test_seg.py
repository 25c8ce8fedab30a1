"""Segmentations come back voxel for voxel, or are counted under a reason."""

import highdicom
import numpy as np
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless

from annotated_site import (
    LIVER_CODE,
    SHAPE,
    ball,
    box_row,
    circle,
    make_site,
    points_mm,
    site_mask_arrays,
    write_boxes,
    write_nifti,
    write_rtstruct,
    write_seg,
)
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.state.cache import ArrayCache


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
