"""Real segmentations, masks and boxes: skipped where ../shared is absent."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest

from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.annotations.marks import on_grid
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.indexing.folder_file import folder_job, folder_row, take_folder_file
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import ACCEPTED, Catalogue, FileRow, Item
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress

pytestmark = pytest.mark.timeout(900)
SEGMENTATIONS = Path("data/dicom/dcmqi_seg_sr/segmentations")


def wrapped(shared_data, out, kind, source, *options):
    tool = shared_data / "tools" / "wrap_as_dicom.py"
    command = [sys.executable, str(tool), kind, str(shared_data / "data" / source), str(out), *options]
    subprocess.run(command, check=True, capture_output=True)
    return out


def catalogued(folder, workspace):
    """Enter one CT series as a volume, with an affine computed here from its attributes."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    row, column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row, column)
    slices.sort(key=lambda ds: np.dot(normal, np.array(ds.ImagePositionPatient, float)))
    first, last = (np.array(ds.ImagePositionPatient, float) for ds in (slices[0], slices[-1]))
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / (len(slices) - 1)
    affine[:3, 1] = column * float(slices[0].PixelSpacing[0])
    affine[:3, 2] = row * float(slices[0].PixelSpacing[1])
    affine[:3, 3] = first
    names, catalogue = workspace.pseudonyms(), Catalogue(workspace.catalogue)
    series = names.of("series", slices[0].SeriesInstanceUID)
    rows = [
        FileRow(str(n), "1", ACCEPTED, names.of("sop", ds.SOPInstanceUID), series, "study")
        for n, ds in enumerate(slices)
    ]
    volume = np.stack([ds.pixel_array for ds in slices])
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0))
    item = Item(
        item_key=series,
        kind="volume",
        family="ct",
        units="hounsfield",
        content_sha256=ArrayCache(workspace.cache).put(volume),
        shape=volume.shape,
        spacing_mm=spacing,
        affine=tuple(affine.ravel()),
        sop_key="",
        series_key=series,
        study_key="study",
        patient_key="patient",
    )
    catalogue.record(rows, [item])
    return item, catalogue


@pytest.mark.parametrize(
    ("images", "seg"),
    [
        ("ct-3slice", "liver.dcm"),
        ("ct-3slice", "partial_overlaps.dcm"),
        ("24x38x3/image", "24x38x3/seg/label.seg"),
        ("23x38x3/image", "23x38x3/seg/label.seg"),
        ("24x38x3/image", "sparse-labelmap-noppv.dcm"),
        ("24x38x3/image", "sparse-labelmap-ppv5.dcm"),
    ],
)
def test_a_real_segmentation_lies_where_highdicom_says(shared_data, tmp_path, images, seg):
    folder, path = shared_data / SEGMENTATIONS / images, shared_data / SEGMENTATIONS / seg
    workspace = Workspace(tmp_path / "state")
    item, catalogue = catalogued(folder, workspace)
    reference = highdicom.seg.segread(path)
    labels = {
        str(segment.SegmentLabel).casefold(): f"segment {segment.SegmentNumber}"
        for segment in reference.SegmentSequence
    }
    # Labels by code would coincide where one code names several segments.
    labels |= {
        f"{one.CodingSchemeDesignator}:{one.CodeValue}".casefold(): f"segment {segment.SegmentNumber}"
        for segment in reference.SegmentSequence
        for one in segment.SegmentedPropertyTypeCodeSequence
        if len(reference.SegmentSequence) == 1
    }
    report = annotate(path, workspace, LabelMap(labels), NullProgress())
    affine = np.array(item.affine).reshape(4, 4)
    found = {
        tuple(np.argwhere(voxels).ravel())
        for one in catalogue.annotations()
        for voxels in [on_grid(one, ArrayCache(workspace.masks).get(one.content_sha256), item.shape)]
    }
    true = set()
    for number in reference.segment_numbers:
        volume = reference.get_volume(segment_numbers=[number], combine_segments=True, relabel=True)
        marked = np.argwhere(volume.array > 0)
        if number == 0 or not len(marked):
            continue
        places = volume.affine @ np.column_stack([marked, np.ones(len(marked))]).T
        index = np.rint((np.linalg.inv(affine) @ places)[:3].T).astype(int)
        true.add(tuple(index[np.lexsort(index.T[::-1])].ravel()))
    assert found == true
    assert report.masks == len(true)


def test_segmentations_in_other_codecs_are_refused_with_a_reason(shared_data, tmp_path):
    workspace = Workspace(tmp_path / "state")
    catalogued(shared_data / SEGMENTATIONS / "ct-3slice", workspace)
    folder = tmp_path / "segs"
    folder.mkdir()
    for path in (shared_data / "data" / "dicom" / "pydicom_data").rglob("liver*.dcm"):
        shutil.copy(path, folder)
    report = annotate(folder, workspace, LabelMap(), NullProgress())
    assert report.annotations + sum(report.skipped.values()) == report.files == 9
    # One is the same mask without the last two rows and columns, in which nothing is marked.
    assert report.skipped == {
        "duplicate_annotation": 1,
        "undecodable_pixels": 2,  # RLE of 1 bit
        "unsupported_transfer_syntax": 5,
    }


def test_every_real_segmentation_without_its_image_is_counted(shared_data, tmp_path):
    workspace = Workspace(tmp_path / "state")
    catalogued(shared_data / SEGMENTATIONS / "23x38x3" / "image", workspace)
    report = annotate(
        shared_data / "data" / "dicom" / "highdicom_test", workspace, LabelMap(), NullProgress()
    )
    assert report.annotations == 0
    assert sum(report.skipped.values()) == report.files
    assert set(report.skipped) == {
        "annotates_unknown_image",
        "annotation_off_grid",  # the tiles of a slide
        "not_an_annotation",
    }


def test_masks_beside_real_brains_equal_the_masks_that_were_drawn(shared_data, tmp_path):
    archives = wrapped(shared_data, tmp_path / "M", "mr3d", "mr_hippocampus_a")
    site, workspace = archives / "site-0", Workspace(tmp_path / "state")
    index_archive(site / "dicom", workspace, NullProgress())
    report = annotate(site, workspace, LabelMap({"1": "anterior", "2": "posterior"}), NullProgress())
    files = sorted((site / "masks").iterdir())
    assert report.images == len(files) > 20
    assert set(report.skipped) == {"not_an_annotation"}  # the slices beside them
    names, catalogue = workspace.pseudonyms(), Catalogue(workspace.catalogue)
    masks = {(one.item_key, one.label): one for one in catalogue.annotations(kind="mask")}
    items = {item.item_key: item for item in catalogue.items()}
    cache, compared = ArrayCache(workspace.masks), 0
    for path in files:
        image = nibabel.load(path)
        drawn = np.asarray(image.dataobj)
        key = names.of("series", path.name.removesuffix(".nii.gz"))
        affine = np.array(items[key].affine).reshape(4, 4)
        for value, label in ((1, "anterior"), (2, "posterior")):
            marked = np.argwhere(drawn == value)
            if not len(marked):
                continue
            places = (
                np.diag([-1, -1, 1, 1]) @ image.affine @ np.column_stack([marked, np.ones(len(marked))]).T
            )
            d, h, w = np.rint((np.linalg.inv(affine) @ places)[:3]).astype(int)
            true = np.zeros(items[key].shape, bool)
            true[d, h, w] = True
            one = masks[key, label]
            np.testing.assert_array_equal(on_grid(one, cache.get(one.content_sha256), true.shape), true)
            compared += 1
    assert compared == report.masks


def test_real_nifti_brains_and_their_masks_pair_by_the_table_of_the_data_set(shared_data, tmp_path):
    source, workspace = shared_data / "data" / "mr_hippocampus_a", Workspace(tmp_path / "state")
    names, cache, catalogue = (
        workspace.pseudonyms(),
        ArrayCache(workspace.cache),
        Catalogue(workspace.catalogue),
    )
    rows = list(csv.DictReader((source / "subjects.csv").open()))
    with DecodePool(2) as pool:
        read = list(pool.map(folder_job(source / row["file"], "mr") for row in rows))
    for row, result in zip(rows, read, strict=True):
        items = take_folder_file(result, row["file"], "mr", names, cache)
        catalogue.record([folder_row(row["file"], "1", ACCEPTED, names)], items)
    assert len(catalogue.items()) == len(rows)
    folder = tmp_path / "marks"
    (folder / "labels").mkdir(parents=True)
    shutil.copy(source / "subjects.csv", folder)
    for row in rows:
        shutil.copy(source / row["mask"], folder / "labels")
    report = annotate(folder, workspace, LabelMap(), NullProgress())
    assert (report.images, report.skipped) == (len(rows), {})
    found = sum(int(cache_of(workspace, one).sum()) for one in catalogue.annotations())
    assert found == sum(
        int((np.asarray(nibabel.load(source / row["mask"]).dataobj) > 0).sum()) for row in rows
    )


def cache_of(workspace, one):
    return ArrayCache(workspace.masks).get(one.content_sha256)


def test_boxes_on_real_radiographs_are_taken_as_they_were_drawn(shared_data, tmp_path, run_hilum):
    archives = wrapped(shared_data, tmp_path / "A", "cxr", "cxr_nih_a", "--size", "160")
    for site in sorted(archives.iterdir()):
        if not (site / "boxes.csv").exists():
            continue
        home = tmp_path / "homes" / site.name
        run_hilum("site", "index", site / "dicom", "--home", home)
        done = run_hilum("site", "annotate", site / "boxes.csv", "--home", home, "--json")
        report = json.loads(done.stdout)
        drawn = list(csv.DictReader((site / "boxes.csv").open()))
        assert (report["boxes"], report["skipped"]) == (len(drawn), {})
        workspace = Workspace(home / "site")
        names = workspace.pseudonyms()
        true = sorted(
            (names.of("sop", row["sop_instance_uid"]), *(float(row[k]) for k in ("x", "y"))) for row in drawn
        )
        found = sorted((one.item_key, *one.place[:2]) for one in Catalogue(workspace.catalogue).annotations())
        assert [row[0] for row in found] == [row[0] for row in true]
        np.testing.assert_allclose([row[1:] for row in found], [row[1:] for row in true], atol=1e-9)
        assert not [path for path in home.rglob("*") if path.is_file() and b"ZZPHI" in path.read_bytes()]
