"""Annotations over several calls, and beside images that change."""

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from annotated_site import ball, box_row, site_mask_arrays, write_boxes, write_seg
from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.annotations.grid import Grid, place
from hilum.client.intake.annotations.targets import Targets, the_one_that_fits
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError
from hilum.common.progress import NullProgress


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
