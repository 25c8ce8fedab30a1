import json

import numpy as np
import pytest
from pydicom.uid import JPEG2000MC, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

from hilum.client.intake.headers.read_instance import read_instance
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.reasons import Reason
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError, RunError
from hilum.common.progress import NullProgress

CT, MR, NUCLEAR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.20"
RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 16


@pytest.fixture
def index(tmp_path):
    def run(archive=tmp_path / "archive"):
        report = index_archive(archive, Workspace(tmp_path / "state"), NullProgress())
        counts = report.counts
        assert counts.files == counts.instances + sum(counts.skipped.values())
        return report

    return run


@pytest.fixture
def items(tmp_path):
    def read():
        catalogue = Catalogue(tmp_path / "state" / "catalogue.sqlite")
        found = [
            (item, np.array(ArrayCache(tmp_path / "state" / "cache").get(item.content_sha256)))
            for item in catalogue.items()
        ]
        catalogue.close()
        return found

    return read


def test_every_reason_is_explained_and_found_by_its_code():
    for reason in Reason:
        assert reason.meaning
        assert Reason(str(reason)) is reason


def test_a_regular_series_becomes_a_volume_in_hounsfield_units(write_series, index, items, tmp_path):
    stored = np.random.default_rng(0).integers(0, 2000, (6, 5, 4)).astype(np.uint16)
    write_series(tmp_path / "archive", stored, RescaleSlope=2, RescaleIntercept=-1024)
    report = index()
    assert (report.counts.instances, report.counts.volumes, report.counts.series) == (6, 1, 1)
    [(item, volume)] = items()
    assert item.units == "hounsfield"
    assert np.array_equal(volume, stored.astype(int) * 2 - 1024)
    assert item.spacing_mm == pytest.approx((2.0, 0.7, 0.8))
    affine = np.reshape(item.affine, (4, 4))
    assert np.allclose(affine @ [3, 2, 1, 1], [-10 + 0.8, -20 + 2 * 0.7, 5 + 6, 1])


def test_slices_stacked_downwards_are_turned_and_stay_in_place(write_series, index, items, tmp_path):
    stored = np.arange(5 * 4 * 4, dtype=np.uint16).reshape(5, 4, 4)
    write_series(tmp_path / "archive", stored, spacing_mm=(-2.0, 1.0, 1.0))
    index()
    [(item, volume)] = items()
    assert np.array_equal(volume, stored[::-1])
    assert np.allclose(np.reshape(item.affine, (4, 4))[:3, 3], [-10, -20, 5 - 8])


def test_coronal_slices_are_ordered_along_their_own_normal(write_series, index, items, tmp_path, dicom):
    stored = np.arange(5 * 4 * 4, dtype=np.uint16).reshape(5, 4, 4)
    uid = generate_uid()
    for k in range(5):
        dicom(
            tmp_path / "archive" / f"{4 - k}.dcm", stored[k], sop_class=MR, SeriesInstanceUID=uid,
            ImageOrientationPatient=[1, 0, 0, 0, 0, -1], PixelSpacing=[1, 1], ImagePositionPatient=[0, 3.0 * k, 0],
        )  # fmt: skip
    index()
    [(item, volume)] = items()
    assert item.units == "arbitrary"
    assert np.array_equal(volume, stored)
    assert np.allclose(np.reshape(item.affine, (4, 4))[:3, 0], [0, 3, 0])


def change_of(position=None, **attributes):
    return {"position": position, **attributes}


@pytest.mark.parametrize(
    ("change", "skipped"),
    [
        (change_of(position=[-10, -20, 100]), {Reason.IRREGULAR_SPACING: 1}),
        (change_of(position=[-10, -20, 7]), {Reason.MULTIPLE_TIMES: 6}),
        (change_of(position=[-8, -20, 15]), {Reason.IRREGULAR_SPACING: 1}),
        (change_of(ImageOrientationPatient=[0, 1, 0, -1, 0, 0]), {Reason.LOCALIZER: 1}),
        (change_of(PixelSpacing=[0.5, 0.5]), {Reason.MIXED_GEOMETRY: 1}),
        (change_of(ImagePositionPatient=None), {Reason.MISSING_ATTRIBUTE: 1}),
    ],
)
def test_a_slice_that_does_not_belong_is_refused(
    write_series, dicom, index, items, tmp_path, change, skipped
):
    stored = np.random.default_rng(0).integers(0, 99, (5, 4, 4)).astype(np.uint16)
    first = write_series(tmp_path / "archive", stored)[0]
    position = change.pop("position") or [-10, -20, 15]
    attributes = {
        "SeriesInstanceUID": first.SeriesInstanceUID, "StudyInstanceUID": first.StudyInstanceUID,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.7, 0.8], "ImagePositionPatient": position,
    }  # fmt: skip
    other = stored[0] + np.uint16(1)
    dicom(tmp_path / "archive" / "last.dcm", other, sop_class=CT, **{**attributes, **change})
    counts = index().counts
    assert counts.skipped == skipped
    if counts.instances:
        [(_item, volume)] = items()
        assert np.array_equal(volume, stored)
    else:
        assert items() == []


def test_a_missing_slice_divides_the_series(write_series, index, items, tmp_path):
    stored = np.random.default_rng(0).integers(0, 99, (9, 4, 4)).astype(np.uint16)
    series = write_series(tmp_path / "archive", stored)
    lost = series[4].SOPInstanceUID
    [path] = [p for p in (tmp_path / "archive").iterdir() if read_instance(p).sop_uid == lost]
    path.unlink()
    assert index().counts.volumes == 2
    found = {item.affine[11]: (item, volume) for item, volume in items()}
    assert np.array_equal(found[5.0][1], stored[:4])
    assert np.array_equal(found[15.0][1], stored[5:])
    assert {json.loads(item.quality)["runs"] for item, _volume in found.values()} == {2}


def test_an_undecodable_slice_costs_itself_and_divides_the_series(write_series, index, items, tmp_path):
    stored = np.random.default_rng(0).integers(0, 99, (9, 4, 4)).astype(np.uint16)
    series = write_series(tmp_path / "archive", stored, syntax=RLELossless)
    broken = series[2].SOPInstanceUID
    [path] = [p for p in (tmp_path / "archive").iterdir() if read_instance(p).sop_uid == broken]
    path.write_bytes(path.read_bytes()[:-60])
    counts = index().counts
    assert counts.skipped == {Reason.TRUNCATED_PIXELS: 1, Reason.IRREGULAR_SPACING: 2}
    [(item, volume)] = items()
    assert np.array_equal(volume, stored[3:])
    assert json.loads(item.quality)["slices_left_out"] == 2


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"sop_class": NUCLEAR}, Reason.OTHER_MODALITY),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.UNSUPPORTED_PIXELS),
        ({"NumberOfFrames": 2}, Reason.UNSUPPORTED_PIXELS),
        ({"BitsStored": 17}, Reason.UNSUPPORTED_PIXELS),
        ({"Rows": 0}, Reason.IMPLAUSIBLE_SIZE),
        ({"Rows": 60_000}, Reason.IMPLAUSIBLE_SIZE),
        ({"Rows": 9_000}, Reason.TRUNCATED_PIXELS),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.LOCALIZER),
        ({"SeriesInstanceUID": None}, Reason.MISSING_ATTRIBUTE),
        ({"RescaleSlope": 0}, Reason.MISSING_ATTRIBUTE),
    ],
)
def test_what_is_not_understood_is_counted_under_a_reason(dicom, index, tmp_path, attributes, reason):
    dicom(tmp_path / "archive" / "a.dcm", RAMP, **attributes)
    assert index().counts.skipped == {reason: 1}


def test_broken_files_are_counted_and_never_raise(dicom, index, tmp_path):
    archive = tmp_path / "archive"
    dicom(archive / "good.dcm", RAMP)
    whole = (archive / "good.dcm").read_bytes()
    (archive / "cut.dcm").write_bytes(whole[:-40])
    (archive / "stub.dcm").write_bytes(whole[:200])
    (archive / "note.txt").write_text("hello")
    (archive / "empty").write_bytes(b"")
    dicom(archive / "flat.dcm", np.full((8, 8), 7, np.uint16))
    dicom(archive / "rle.dcm", RAMP, syntax=RLELossless)
    cut = (archive / "rle.dcm").read_bytes()
    (archive / "rle.dcm").write_bytes(cut[:-60])
    report = index()
    assert report.counts.instances == 1, "the whole file is found behind its damaged copies"
    assert report.counts.skipped[Reason.NOT_DICOM] == 1
    assert report.counts.skipped[Reason.EMPTY_FILE] == 1
    assert report.counts.skipped[Reason.CONSTANT_PIXELS] == 1
    assert report.counts.files == 7


def test_a_damaged_copy_does_not_hide_the_good_one(dicom, index, tmp_path):
    archive, same = (
        tmp_path / "archive",
        {"SOPInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()},
    )
    for name in ("a.dcm", "b.dcm", "c.dcm"):
        dicom(archive / name, RAMP, syntax=RLELossless, **same)
    for name in ("a.dcm", "b.dcm"):
        (archive / name).write_bytes((archive / name).read_bytes()[:-60])
    counts = index().counts
    assert counts.instances == 1
    assert sum(counts.skipped.values()) == 2


def test_a_compression_that_is_not_read_is_named(dicom, index, tmp_path):
    dicom(tmp_path / "archive" / "a.dcm", RAMP)
    data = (tmp_path / "archive" / "a.dcm").read_bytes()
    # Little endian UI elements of even length: 1.2.840.10008.1.2.1 is padded to 20 bytes.
    old = b"\x14\x00" + ExplicitVRLittleEndian.encode() + b"\0"
    new = b"\x16\x00" + JPEG2000MC.encode()
    assert data.count(old) == 1
    (tmp_path / "archive" / "a.dcm").write_bytes(data.replace(old, new))
    assert index().counts.skipped == {Reason.UNSUPPORTED_SYNTAX: 1}


def test_a_header_without_preamble_is_read(dicom, index, tmp_path):
    dicom(tmp_path / "archive" / "a.dcm", RAMP, syntax=ImplicitVRLittleEndian)
    data = (tmp_path / "archive" / "a.dcm").read_bytes()
    start = (
        data.index(b"\x08\x00\x08\x00") if b"\x08\x00\x08\x00" in data else data.index(b"\x08\x00\x16\x00")
    )
    (tmp_path / "archive" / "a.dcm").write_bytes(data[start:])
    assert index().counts.instances == 1


def test_a_second_look_reads_no_pixels(dicom, write_series, index, tmp_path):
    dicom(tmp_path / "archive" / "x.dcm", RAMP)
    write_series(
        tmp_path / "archive" / "ct", np.random.default_rng(0).integers(0, 99, (5, 4, 4)).astype(np.uint16)
    )
    first, second = index(), index()
    assert (first.decoded, second.decoded) == (6, 0)
    assert first.counts == second.counts


def test_changes_are_followed_and_only_they_are_read(dicom, write_series, index, tmp_path):
    archive = tmp_path / "archive"
    dicom(archive / "x.dcm", RAMP)
    dicom(archive / "y.dcm", RAMP + np.uint16(1))
    series = write_series(
        archive / "ct", np.random.default_rng(0).integers(0, 99, (5, 4, 4)).astype(np.uint16)
    )
    index()
    dicom(archive / "x.dcm", RAMP + np.uint16(5))
    (archive / "y.dcm").unlink()
    last = next(
        path
        for path in (archive / "ct").iterdir()
        if read_instance(path).sop_uid == series[-1].SOPInstanceUID
    )
    last.unlink()
    report = index()
    assert report.decoded == 1 + 4
    assert report.removed == 2
    assert (report.counts.files, report.counts.volumes, report.counts.instances) == (5, 1, 5)
    assert len(list((tmp_path / "state" / "cache").glob("*/*.npy"))) == 2


def test_a_copy_is_counted_once_and_takes_over_when_the_first_goes(dicom, index, tmp_path):
    uid = generate_uid()
    dicom(tmp_path / "archive" / "a.dcm", RAMP, SOPInstanceUID=uid)
    dicom(tmp_path / "archive" / "b.dcm", RAMP, SOPInstanceUID=uid)
    assert index().counts.skipped == {Reason.DUPLICATE: 1}
    for path in ("a.dcm", "b.dcm"):
        copy = tmp_path / "archive" / path
        kept = copy.read_bytes()
        copy.unlink()
        counts = index().counts
        assert (counts.instances, counts.skipped) == (1, {})
        copy.write_bytes(kept)
        index()


def test_no_identifier_reaches_the_catalogue_or_the_cache(dicom, write_series, index, tmp_path):
    dicom(tmp_path / "archive" / "ZZPHI-name.dcm", RAMP)
    series = write_series(
        tmp_path / "archive" / "ZZPHI", np.random.default_rng(0).integers(0, 99, (5, 4, 4)).astype(np.uint16)
    )
    index()
    everything = b"".join(p.read_bytes() for p in (tmp_path / "state").rglob("*") if p.is_file())
    assert b"ZZPHI" not in everything
    assert series[0].SeriesInstanceUID.encode() not in everything


def test_folders_that_can_not_be_an_archive_are_refused(tmp_path, index):
    with pytest.raises(DataError, match="does not exist"):
        index(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        index(tmp_path / "file")
    (tmp_path / "archive").mkdir()
    with pytest.raises(DataError, match="is empty"):
        index()


def test_a_pipe_in_the_archive_is_not_opened(index, dicom, tmp_path):
    import os

    dicom(tmp_path / "archive" / "a.dcm", RAMP)
    os.mkfifo(tmp_path / "archive" / "pipe")
    assert index().counts.skipped == {Reason.NOT_A_FILE: 1}


def test_two_indexers_do_not_work_on_one_site(dicom, index, tmp_path):
    dicom(tmp_path / "archive" / "a.dcm", RAMP)
    with Workspace(tmp_path / "state").locked(), pytest.raises(RunError, match="another hilum process"):
        index()


def test_interrupted_indexing_goes_on_where_it_was(dicom, tmp_path, index):
    for number in range(80):
        dicom(tmp_path / "archive" / f"{number}.dcm", RAMP + np.uint16(number))

    class Stop:
        def advance(self, done, note=""):
            if done >= 64:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_archive(tmp_path / "archive", Workspace(tmp_path / "state"), Stop())
    report = index()
    assert report.decoded == 80 - 64
    assert report.counts.instances == 80
