"""Files that share an instance UID: a damaged one costs only itself, and of two that contradict none is believed."""

import json
import shutil

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.reasons import Reason
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress

CR, CT, US_CLIP = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1", "2", "3.1"))
SLICES, DOUBLED = 12, 5
NATIVE, ENCODED = ExplicitVRLittleEndian, RLELossless
CONTRADICT, DUPLICATE = Reason.CONTRADICTING_COPIES, Reason.DUPLICATE
VOLUME = np.random.default_rng(5).integers(0, 900, (SLICES + 1, 8, 8)).astype(np.uint16)


@pytest.fixture
def archive(tmp_path):
    return tmp_path / "archive"


@pytest.fixture
def index(archive, tmp_path):
    """Index; gives the report and the arrays, by the place of their first slice."""

    def run():
        workspace = Workspace(tmp_path / "state")
        report = index_archive(archive, workspace, NullProgress())
        assert report.counts.files == report.counts.instances + sum(report.counts.skipped.values())
        catalogue, cache = Catalogue(workspace.catalogue), ArrayCache(workspace.cache)
        try:
            items = [(item, np.array(cache.get(item.content_sha256))) for item in catalogue.items()]
        finally:
            catalogue.close()
        return report, sorted(items, key=lambda one: one[0].affine)

    return run


@pytest.fixture
def write(archive, dicom):
    """A CT series of twelve slices, or of any other class one image."""

    def run(sop_class=CT, syntax=NATIVE, series="1.2.77", name="slice", slices=SLICES, **attributes):
        for k in range(slices if sop_class == CT else 1):
            dicom(
                archive / f"{name}{k:02d}",
                VOLUME[k],
                sop_class=sop_class,
                syntax=syntax,
                SOPInstanceUID=f"1.2.8.{k + 1}",
                SeriesInstanceUID=series,
                StudyInstanceUID="1.2.9",
                ImagePositionPatient=[0, 0, 2 * k],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[1, 1],
                **attributes,
            )
        return archive / f"{name}{DOUBLED if sop_class == CT else 0:02d}"

    return run


def copy(path, name="copy", *, pixels=None, cut=0, **attributes):
    """A file of the same instance with something else in it."""
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    if pixels is not None:
        syntax = dataset.file_meta.TransferSyntaxUID
        dataset.file_meta.TransferSyntaxUID = NATIVE
        dataset.PixelData = pixels.tobytes()
        dataset["PixelData"].VR = "OW"
        if syntax == ENCODED:
            dataset.compress(ENCODED, encoding_plugin="pydicom", generate_instance_uid=False)
    made = path.with_name(name)
    dataset.save_as(made)
    if cut:
        made.write_bytes(made.read_bytes()[:-cut])
    return made


def other(pixels):
    changed = pixels.copy()
    changed[0, 0] += 1
    return changed


WHOLE = [VOLUME[:SLICES]]
GAP = [VOLUME[:DOUBLED], VOLUME[DOUBLED + 1 : SLICES]]
ELSEWHERE = {"SeriesInstanceUID": "1.2.999"}
MOVED = {"ImagePositionPatient": [0, 0, 11]}
COPIES = {
    "identical": ({}, {DUPLICATE: 1}, WHOLE),
    "cut": ({"cut": 60}, {Reason.TRUNCATED_PIXELS: 1}, WHOLE),
    "other pixels": ({"pixels": other(VOLUME[DOUBLED])}, {CONTRADICT: 2}, GAP),
    "other position": (MOVED, {CONTRADICT: 2}, GAP),
    "other rescale": ({"RescaleSlope": 2}, {CONTRADICT: 2}, GAP),
    "other position, and cut": ({**MOVED, "cut": 60}, {Reason.TRUNCATED_PIXELS: 1}, WHOLE),
    "no position": ({"ImagePositionPatient": None}, {Reason.MISSING_ATTRIBUTE: 1}, WHOLE),
    "impossible position": ({"ImagePositionPatient": [0, 0, 1e7]}, {Reason.LYING_GEOMETRY: 1}, WHOLE),
    "in another series": (ELSEWHERE, {DUPLICATE: 1}, WHOLE),
    "in another series, and cut": ({**ELSEWHERE, "cut": 60}, {Reason.TRUNCATED_PIXELS: 1}, WHOLE),
    "in another series, other pixels": (
        {**ELSEWHERE, "pixels": other(VOLUME[DOUBLED])},
        {CONTRADICT: 2},
        GAP,
    ),
    "in another series, other position": ({**ELSEWHERE, **MOVED}, {CONTRADICT: 2}, GAP),
}


@pytest.mark.parametrize("name", ["a copy before it", "slice99"], ids=["before", "behind"])
@pytest.mark.parametrize("syntax", [NATIVE, ENCODED])
@pytest.mark.parametrize("case", COPIES)
def test_a_copy_of_a_slice_costs_what_is_wrong_with_it(write, index, case, syntax, name):
    changes, skipped, expected = COPIES[case]
    copy(write(syntax=syntax), name, **changes)
    report, made = index()
    assert report.counts.skipped == skipped
    assert len(made) == len(expected)
    for (item, array), values in zip(made, expected, strict=True):
        np.testing.assert_array_equal(array, values)
        assert json.loads(item.quality)["runs"] == len(expected)
    again, _made = index()
    assert (again.decoded, again.counts) == (0, report.counts)


@pytest.mark.parametrize("syntax", [NATIVE, ENCODED])
@pytest.mark.parametrize("series", [{}, ELSEWHERE])
def test_a_good_copy_stands_in_for_a_damaged_slice_whatever_series_it_names(write, index, series, syntax):
    path = write(syntax=syntax)
    copy(path, **series)
    path.write_bytes(path.read_bytes()[:-60])
    report, [(_item, array)] = index()
    assert report.counts.skipped == {Reason.TRUNCATED_PIXELS: 1}
    assert report.counts.series == 1
    np.testing.assert_array_equal(array, VOLUME[:SLICES])


@pytest.mark.parametrize("syntax", [NATIVE, ENCODED])
def test_a_series_that_was_sent_twice_under_two_uids_is_one_volume(write, index, syntax):
    write(syntax=syntax)
    write(syntax=syntax, series="1.2.78", name="again")
    report, [(_item, array)] = index()
    assert report.counts.skipped == {DUPLICATE: SLICES}
    np.testing.assert_array_equal(array, VOLUME[:SLICES])


def test_no_majority_is_believed_and_a_damaged_file_does_not_vote(write, index):
    path = write(syntax=ENCODED)
    copy(path, "b")
    copy(path, "c", pixels=other(VOLUME[DOUBLED]))
    copy(path, "d", **MOVED, cut=60)
    report, made = index()
    assert report.counts.skipped == {CONTRADICT: 3, Reason.TRUNCATED_PIXELS: 1}
    assert [len(array) for _item, array in made] == [len(part) for part in GAP]


@pytest.mark.parametrize("syntax", [NATIVE, ENCODED])
@pytest.mark.parametrize(
    ("changes", "skipped"),
    [
        ({}, {DUPLICATE: 1}),
        ({"cut": 60}, {Reason.TRUNCATED_PIXELS: 1}),
        ({"pixels": other(VOLUME[0])}, {CONTRADICT: 2}),
        ({"RescaleSlope": 2}, {CONTRADICT: 2}),
        ({"RescaleSlope": 2, "cut": 60}, {Reason.TRUNCATED_PIXELS: 1}),
        (ELSEWHERE, {DUPLICATE: 1}),
        ({**ELSEWHERE, "pixels": other(VOLUME[0])}, {CONTRADICT: 2}),
    ],
)
def test_a_copy_of_a_radiograph_costs_what_is_wrong_with_it(write, index, changes, skipped, syntax):
    copy(write(CR, syntax), **changes)
    report, made = index()
    assert report.counts.skipped == skipped
    assert len(made) == (CONTRADICT not in skipped)
    assert index()[0].decoded == 0


def test_a_copy_of_a_clip_with_another_last_frame_is_seen(archive, dicom, index):
    frames = np.concatenate([VOLUME[k] for k in range(3)])
    dicom(archive / "a", frames, sop_class=US_CLIP, Rows=8, NumberOfFrames=3, SOPInstanceUID="1.2.8")
    copy(archive / "a", "b")
    assert index()[0].counts.skipped.get(CONTRADICT) is None
    changed = frames.copy()
    changed[-1, -1] = 0
    copy(archive / "a", "b", pixels=changed)
    assert index()[0].counts.skipped == {CONTRADICT: 2}


@pytest.mark.parametrize("sop_class", [CT, CR])
@pytest.mark.parametrize("series", [{}, ELSEWHERE])
def test_a_contradiction_comes_and_goes_with_the_file_that_brings_it(write, index, sop_class, series):
    path = write(sop_class)
    pixels = VOLUME[DOUBLED if sop_class == CT else 0]
    alone, made = index()
    twin = copy(path, "twin", **series)
    both, _made = index()
    assert both.counts.skipped == {DUPLICATE: 1}
    assert both.counts.instances == alone.counts.instances
    liar = copy(path, "liar", pixels=other(pixels), **series)
    assert index()[0].counts.skipped == {CONTRADICT: 3}
    liar.unlink()
    assert index()[0].counts == both.counts
    path.unlink()
    _report, found = index()
    if sop_class == CR or not series:
        assert [array.tolist() for _item, array in found] == [array.tolist() for _item, array in made]
    if sop_class == CT:
        twin.unlink()
        assert index()[0].counts.skipped == {}


def test_a_known_copy_is_not_decoded_again_for_a_new_one(write, index):
    path = write(CR)
    copy(path, "b")
    assert index()[0].decoded == 2
    shutil.copy(path, path.with_name("c"))
    report, _made = index()
    assert report.counts.skipped == {DUPLICATE: 2}
    assert report.decoded == 2, "the new file and one that it is compared with"


@pytest.mark.parametrize("longer", [0, 1])
def test_a_whole_series_stays_whole_and_its_own_when_its_twin_goes(write, index, archive, tmp_path, longer):
    """The longer of the two had the instances of both."""
    write(slices=SLICES + longer)
    write(series="1.2.78", name="again", slices=SLICES + 1 - longer)
    report, [(_item, array)] = index()
    assert len(array) == SLICES + 1
    assert report.counts.skipped == {DUPLICATE: SLICES}
    for path in archive.glob("slice*" if longer else "again*"):
        path.unlink()
    report, [(item, array)] = index()
    assert report.counts.skipped == {}
    np.testing.assert_array_equal(array, VOLUME[:SLICES])
    left = Workspace(tmp_path / "state").pseudonyms().of("series", "1.2.78" if longer else "1.2.77")
    assert item.series_key == left
