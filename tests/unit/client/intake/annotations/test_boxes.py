"""Boxes of tables and COCO files are tied to their images."""

import json

import pytest

from annotated_site import box_row, write_boxes
from hilum.client.intake.formats.naming import LabelMap


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
