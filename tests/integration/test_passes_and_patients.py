"""Series of several passes, screens among slices, one patient in several spellings: from files to the catalogue."""

import numpy as np
import pytest
from pydicom.uid import generate_uid

from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.labels import read_labels
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress

CT, MR, SC = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "7"))
ECHO_FREE = {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}


@pytest.fixture
def site(tmp_path, dicom):
    class Site:
        archive = tmp_path / "archive"
        workspace = Workspace(tmp_path / "state")

        def __init__(self):
            self.series = {name: generate_uid() for name in ("SeriesInstanceUID", "StudyInstanceUID")}
            self.written = 0

        def write(self, pixels, **attributes):
            self.written += 1
            return dicom(self.archive / f"{(self.written * 37) % 101:03d}.dcm", pixels, **attributes)

        def passes(self, *told, shift_mm=2.5, count=8, sop_class=CT, **rest):
            """One pass for each of `told`, 5 mm from slice to slice, each shifted against the one before; gives their voxels."""
            rng, made = np.random.default_rng(0), []
            for number, attributes in enumerate(told):
                made.append(rng.integers(0, 2000, (count, 8, 10)).astype(np.int16))
                for k, plane in enumerate(made[-1]):
                    self.write(
                        plane,
                        **{
                            "sop_class": sop_class,
                            "ImagePositionPatient": [0, 0, number * shift_mm + 5 * k],
                            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                            "PixelSpacing": [1, 1],
                            "SliceThickness": 5,
                            "InstanceNumber": None,
                            **ECHO_FREE,
                            **self.series,
                            **rest,
                            **{
                                name: value(k) if callable(value) else value
                                for name, value in attributes.items()
                            },
                        },
                    )
            return made

        def index(self):
            return index_archive(self.archive, self.workspace, NullProgress()).counts

        def arrays(self):
            catalogue = Catalogue(self.workspace.catalogue)
            try:
                return [
                    ArrayCache(self.workspace.cache).get(item.content_sha256) for item in catalogue.items()
                ]
            finally:
                catalogue.close()

    return Site()


def same(arrays, expected):
    return sorted(one.tobytes() for one in arrays) == sorted(one.tobytes() for one in expected)


TOLD = {
    "acquisition number": [{"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}],
    "one time each": [{"AcquisitionTime": "100000"}, {"AcquisitionTime": "100500.5"}],
    "times, and back": [
        {"AcquisitionTime": lambda k: f"1000{k:02d}"},
        {"AcquisitionTime": lambda k: f"1005{9 - k:02d}"},
    ],
    "image type": [{}, {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "DELAYED"]}],
    "contrast agent": [{}, {"ContrastBolusAgent": "AGENT"}],
    "trigger time": [{"TriggerTime": "0"}, {"TriggerTime": "400"}],
    "kernel": [{"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}],
    "voltage": [{"KVP": "80"}, {"KVP": "140"}],
    "instance number": [{"InstanceNumber": lambda k: 1 + k}, {"InstanceNumber": lambda k: 9 + k}],
    "instance number, and back": [{"InstanceNumber": lambda k: 1 + k}, {"InstanceNumber": lambda k: 16 - k}],
    "three of them": [{"AcquisitionNumber": n} for n in (1, 2, 3)],
}


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("shift_mm", [5 / 3, 2.5, 27.5, 35.0])
def test_passes_over_one_region_are_volumes_of_their_own(site, told, shift_mm):
    made = site.passes(*TOLD[told], shift_mm=shift_mm)
    counts = site.index()
    assert (counts.volumes, counts.skipped) == (len(made), {})
    assert same(site.arrays(), made)


def test_passes_that_nothing_tells_apart_are_refused(site):
    site.passes({}, {})
    assert site.index().skipped == {"overlapping_passes_not_told_apart": 16}


@pytest.mark.parametrize("sop_class", [CT, MR])
@pytest.mark.parametrize("thicknesses", [(5, 2.5), (2.5, 5), (1, 4)])
@pytest.mark.parametrize("numbered", [False, True])
def test_thick_slices_between_thin_ones_are_no_stack(site, sop_class, thicknesses, numbered):
    numbers = [(lambda k, n=n: 2 * k + n if numbered else None) for n in (0, 1)]
    told = [{"SliceThickness": mm, "InstanceNumber": n} for mm, n in zip(thicknesses, numbers, strict=True)]
    site.passes(*told, sop_class=sop_class)
    assert site.index().skipped == {"overlapping_passes_not_told_apart": 16}


@pytest.mark.parametrize("sop_class", [CT, MR])
@pytest.mark.parametrize("silent", [0, 4, 7])
@pytest.mark.parametrize("nothing", [None, 0])
def test_one_slice_that_tells_no_thickness_hides_no_alternation(site, sop_class, silent, nothing):
    told = [
        {
            "SliceThickness": lambda k, mm=mm: nothing if (mm, k) == (5, silent) else mm,
            "InstanceNumber": lambda k, n=n: 2 * k + n,
        }
        for n, mm in ((0, 5), (1, 2.5))
    ]
    site.passes(*told, sop_class=sop_class)
    assert site.index().skipped == {"overlapping_passes_not_told_apart": 16}


@pytest.mark.parametrize("silent", range(3))
def test_one_slice_that_tells_no_thickness_hides_no_second_pass(site, silent):
    site.passes({"SliceThickness": lambda k: None if k == silent else 5}, {})
    assert site.index().skipped == {"overlapping_passes_not_told_apart": 16}


def test_slices_that_tell_no_thickness_count_with_the_others(site):
    told = [
        {"SliceThickness": mm, "InstanceNumber": lambda k, n=n: 2 * k + n} for n, mm in ((0, 5), (1, None))
    ]
    site.passes(*told)
    assert site.index().volumes == 1


def test_thin_slices_behind_thick_ones_are_one_stack(site):
    site.passes({"SliceThickness": 5}, {"SliceThickness": 2.5}, shift_mm=40)
    assert site.index().volumes == 1


def test_the_ends_of_passes_that_nothing_tells_apart_are_of_one_pass_each(site):
    first, second = site.passes({}, {}, shift_mm=27.5)
    assert site.index().skipped == {"overlapping_passes_not_told_apart": 5}
    assert same(site.arrays(), [first[:6], second[3:]])


def test_slices_that_overlap_by_half_in_one_numbered_pass_are_one_volume(site):
    (made,) = site.passes({"InstanceNumber": lambda k: 8 - k}, SliceThickness=10)
    assert site.index().skipped == {}
    assert same(site.arrays(), [made])


def test_mr_slices_measured_every_other_one_first_are_one_volume(site):
    (made,) = site.passes({"AcquisitionTime": lambda k: f"10{k % 2:02d}{k:02d}"}, sop_class=MR)
    assert site.index().skipped == {}
    assert same(site.arrays(), [made])


@pytest.mark.parametrize(
    "screen",
    [
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]},
        {"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]},
        {"BurnedInAnnotation": "YES"},
        {"BurnedInAnnotation": "Y"},
    ],
)
@pytest.mark.parametrize("placed", [True, False])
def test_a_screen_among_ct_slices_is_refused_and_the_volume_is_kept(site, screen, placed):
    (made,) = site.passes({"InstanceNumber": lambda k: k})
    place = {
        "ImagePositionPatient": [0, 0, 40],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
    }
    site.write(made[0], sop_class=CT, **ECHO_FREE | site.series | (place if placed else {}) | screen)
    assert site.index().skipped == {"slice_may_show_text": 1}
    assert same(site.arrays(), [made])


def test_a_series_all_of_whose_slices_say_that_text_is_burned_in_makes_no_volume(site):
    site.passes({"BurnedInAnnotation": "YES"})
    assert site.index().skipped == {"slice_may_show_text": 8}
    assert site.arrays() == []


def test_a_secondary_capture_of_a_ct_study_that_says_yes_waits(site):
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    site.write(ramp, sop_class=SC, BurnedInAnnotation="YES", **site.series)
    assert site.index().skipped == {"quarantined_possible_text": 1}


def test_one_patient_in_several_spellings_is_one_and_labels_find_it(site, tmp_path):
    rng = np.random.default_rng(0)
    written = [
        site.write(rng.integers(0, 999, (8, 8)).astype(np.uint16), PatientID=text)
        for text in ("ABC12", " ABC12", "ABC12  ", "abc12")
    ]
    assert site.index().patients == 2
    table = tmp_path / "labels.csv"
    lines = [
        f"{ds.SOPInstanceUID},{name},1" for ds, name in zip(written, (" P1", "P1 ", "P1", "P2"), strict=True)
    ]
    table.write_text("\n".join(["sop_instance_uid,patient,finding", *lines]))
    catalogue = Catalogue(site.workspace.catalogue)
    labels = read_labels(table, "finding", catalogue, site.workspace.pseudonyms())
    catalogue.close()
    assert len(set(labels.patient_of.values())) == 2


def test_what_is_left_of_a_volume_is_told_apart_from_a_short_series(site):
    (made,) = site.passes({"InstanceNumber": lambda k: k}, count=4)
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "SliceThickness": 5}
    uid = generate_uid()
    for number in range(2):
        site.write(
            made[number],
            sop_class=CT,
            SOPInstanceUID=uid,
            ImagePositionPatient=[0, 0, 20],
            **ECHO_FREE | site.series | place,
        )
    (site.archive / f"{37 % 101:03d}.dcm").unlink()
    assert site.index().skipped == {"files_of_one_instance_contradict": 2, "too_few_slices_left": 3}


def test_series_that_hold_several_volumes_are_counted_by_what_tells_them_apart(site, run_hilum):
    site.passes({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2})
    assert site.index().split_series == {"acquisition": 1}
    text = run_hilum("site", "index", site.archive).stdout
    assert "1 series of several volumes: 1 by acquisition number" in text


def test_another_way_of_reading_reads_an_unchanged_archive_again(site, monkeypatch):
    (made,) = site.passes({"InstanceNumber": lambda k: k})
    site.index()
    assert index_archive(site.archive, site.workspace, NullProgress()).decoded == 0
    monkeypatch.setattr("hilum.client.intake.sources.scan.READING", -1)
    again = index_archive(site.archive, site.workspace, NullProgress())
    assert (again.decoded, again.removed, again.counts.volumes, again.counts.skipped) == (8, 0, 1, {})
    assert same(site.arrays(), [made])
