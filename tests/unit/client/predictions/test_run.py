import csv
import json

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from annotated_site import write_nifti
from hilum.client.predictions.run import predict_folder
from hilum.common.errors import DataError, RunError
from hilum.common.progress import progress_bar
from predicting import AT, NAMES, Detector, Segmenter, dciodvfy_errors, marked

SC = "1.2.840.10008.5.1.4.1.1.7"


def rows_of(out, name="predictions.csv"):
    with (out / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def predict(model, folder, out, **options):
    return predict_folder(model, folder, out, progress_bar, **{"overlay": False, "at": AT, **options})


@pytest.fixture
def films(tmp_path, dicom):
    """Two radiographs; beside them text burned into a screen, a text file, and one radiograph that shows nothing."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    for name in ("a", "b"):
        dicom(folder / "films" / f"{name}.dcm", rng.integers(0, 999, (40, 50)).astype(np.uint16))
    screen = rng.integers(0, 255, (64, 64)).astype(np.uint8)
    dicom(folder / "screen.dcm", screen, sop_class=SC, Modality="OT", BurnedInAnnotation="YES")
    dicom(folder / "black.dcm", np.zeros((40, 50), np.uint16))
    (folder / "notes.txt").write_text("ZZPHI")
    return folder


def test_masks_of_films_are_written_and_what_was_not_asked_is_named(tmp_path, films, make_study):
    out = tmp_path / "out"
    report = predict(Segmenter(make_study()), films, out)
    assert report.counts == {"predicted": 2, "quarantined": 1, "refused": 2}
    by_source = {row["source"]: row for row in rows_of(out)}
    assert by_source["screen.dcm"]["outcome"] == "quarantined"
    assert by_source["screen.dcm"]["reason"].startswith("quarantined_possible_text: ")
    assert by_source["black.dcm"]["reason"].startswith("constant_pixels: ")
    assert by_source["notes.txt"]["reason"].startswith("not_dicom: ")
    row = by_source["films/a.dcm"]
    image = pydicom.dcmread(films / "films" / "a.dcm")
    assert row["series_instance_uid"] == image.SeriesInstanceUID
    assert row["sop_instance_uid"] == image.SOPInstanceUID
    assert int(row["mass voxels"]) == (marked((40, 50)) == 2).sum()
    path = out / row["files"]
    assert not dciodvfy_errors(path)
    seg = highdicom.seg.segread(path)
    assert seg.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert len(report.objects) == 2
    assert all(one.exists() for one in report.objects)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["counts"] == report.counts
    assert not {path.name for path in out.iterdir()} - {"seg", "predictions.csv", "summary.json"}
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []


def test_boxes_go_into_reports_and_a_table_that_annotate_reads(tmp_path, films, make_study):
    rng = np.random.default_rng(5)
    Image.fromarray(rng.integers(0, 255, (40, 50), np.uint8)).save(films / "c.png")
    out = tmp_path / "out"
    report = predict(Detector(make_study()), films, out, overlay=True)
    assert report.counts["predicted"] == 3
    boxes = rows_of(out, "boxes.csv")
    assert len(boxes) == 2  # in two of three
    assert {key: boxes[0][key] for key in ("finding", "score", "x", "y", "w", "h")} == {
        "finding": "mass", "score": "0.875", "x": "4.5", "y": "6", "w": "20", "h": "11.25",
    }  # fmt: skip
    predicted = [row for row in rows_of(out) if row["outcome"] == "predicted"]
    assert sorted(row["boxes"] for row in predicted) == ["0", "1", "1"]
    assert len(list((out / "overlay").rglob("*.png"))) == 3
    from hilum.client.intake.annotations.annotate import annotate
    from hilum.client.intake.formats.naming import LabelMap
    from hilum.client.intake.indexing.index import index_archive
    from hilum.client.state.workspace import Workspace
    from hilum.common.progress import NullProgress

    workspace = Workspace(tmp_path / "site")
    index_archive(films, workspace, NullProgress(), images="radiograph")
    assert annotate(out / "boxes.csv", workspace, LabelMap(), NullProgress()).boxes == 2


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_a_nifti_volume_gets_a_mask_with_its_own_affine(tmp_path, make_study, flips):
    values = np.random.default_rng(0).integers(0, 900, (10, 12, 14)).astype(np.int16)
    affine = np.array([[0, 0.1, 1.1, -20], [0.2, 0.9, 0, 7], [2.0, 0, 0, -40], [0, 0, 0, 1.0]])
    source = tmp_path / "in" / "sub" / "brain.nii.gz"
    write_nifti(source, values, affine, axes_order=(2, 1, 0), flips=flips, dtype=np.int16)
    study = make_study(data={"modality": "mr", "dims": 3, "image_size": 16})
    out = tmp_path / "out"
    predict(Segmenter(study), tmp_path / "in", out, overlay=True)
    [row] = rows_of(out)
    assert row["files"] == "masks/sub/brain.nii.gz overlay/sub/brain.png"
    made, image = nibabel.load(out / "masks" / "sub" / "brain.nii.gz"), nibabel.load(source)
    np.testing.assert_array_equal(made.affine, image.affine)
    assert (made.shape, made.get_data_dtype()) == (image.shape, np.uint8)
    # The item's grid is the standard one of the file's axes; a voxel is told by where it lies in the patient.
    from hilum.client.intake.formats.nifti import open_nifti

    with open_nifti(source) as file:
        item_affine, shape = file.affine, file.shape
    labels = marked(shape)
    places = np.argwhere(labels == 1)
    lps = item_affine @ np.column_stack([places, np.ones(len(places))]).T
    index = np.linalg.inv(made.affine) @ np.diag([-1, -1, 1, 1]) @ lps
    voxels = np.zeros(made.shape, bool)
    voxels[tuple(np.rint(index[:3]).astype(int))] = True
    np.testing.assert_array_equal(np.asarray(made.dataobj) == 1, voxels)


def test_a_picture_gets_a_picture(tmp_path, make_study):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.fromarray(rng.integers(0, 255, (40, 50), np.uint8)).save(tmp_path / "in" / name)
    out = tmp_path / "out"
    predict(Segmenter(make_study()), tmp_path / "in", out)
    files = {row["source"]: row["files"] for row in rows_of(out)}
    assert set(files.values()) == {"masks/a.png", "masks/a-2.png"}
    for name in files.values():
        np.testing.assert_array_equal(np.asarray(Image.open(out / name)), marked((40, 50)))


def test_a_volume_that_the_model_does_not_read_is_named(tmp_path, films, make_study, write_series):
    voxels = np.random.default_rng(0).integers(0, 900, (9, 20, 24)).astype(np.int16)
    write_series(films / "ct", voxels)
    out = tmp_path / "out"
    report = predict(Segmenter(make_study()), films, out)
    assert report.counts["not_asked"] == 1
    [row] = [row for row in rows_of(out) if row["outcome"] == "not_asked"]
    assert (row["source"], row["reason"]) == ("ct", "ct volume")


def test_nothing_is_left_of_a_call_that_fails(tmp_path, films, make_study):
    class Broken(Segmenter):
        def results(self, prepared, arrays):
            yield next(super().results(prepared, arrays))
            raise RuntimeError("the model broke")

    before = sorted(path for path in films.rglob("*"))
    with pytest.raises(RuntimeError, match="the model broke"):
        predict(Broken(make_study()), films, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert sorted(path for path in films.rglob("*")) == before


def test_a_folder_without_an_image_that_the_model_reads_says_what_there_is(tmp_path, films, make_study):
    study = make_study(data={"modality": "ct", "dims": 3, "image_size": 16})
    with pytest.raises(
        DataError, match=r"nothing to predict: .*radiograph in 2D.*1 as quarantined_possible_text"
    ):
        predict(Segmenter(study), films, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_output_folder_is_new_or_empty_and_not_in_the_archive(tmp_path, films, make_study):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(RunError, match="not empty"):
        predict(Segmenter(make_study()), films, tmp_path / "full")
    with pytest.raises(RunError, match="lies in the folder that is read"):
        predict(Segmenter(make_study()), films, films / "out")
    (tmp_path / "empty").mkdir()
    assert predict(Segmenter(make_study()), films, tmp_path / "empty").counts["predicted"] == 2


def test_an_overlay_has_the_colours_of_its_classes(tmp_path, films, make_study):
    out = tmp_path / "out"
    predict(Segmenter(make_study()), films, out, overlay=True)
    for path in (out / "overlay").iterdir():
        picture = np.asarray(Image.open(path))
        assert picture.shape[1] == 512
        for colour in ((255, 140, 0), (0, 190, 255)):
            assert (picture[:409] == colour).all(axis=2).any(), NAMES
