"""The whole of the real images at hand, and two thousand mutants of them, through `hilum site index`."""

import os
from collections import Counter

import pytest

import index_mutants
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sources.sources import find
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace

MUTANTS = 2000
NOT_DECODED_BY_OTHERS = {  # segmentations of one bit: in RLE, which holds no bits, and with frames deflated
    "liver_rle.dcm",
    "liver_nonbyte_aligned_rle.dcm",
    "liver_deflate.dcm",
    "liver_nonbyte_aligned_deflate.dcm",
}
REASONS = {  # of the DICOM files, by folder: each looked at
    "ct_philips_head": {"": 28, "localizer": 1, "not_an_image": 2},
    "cxr_dx_nih": {"": 1, "quarantined_possible_text": 1},
    "dcmqi_seg_sr": {"too_few_slices": 12, "other_modality": 7, "not_an_image": 2},
    "highdicom_test": {"": 1, "not_an_image": 3, "other_modality": 20, "too_few_slices": 1},
    "mr_cardiac_contours": {"several_time_points_not_told_apart": 24},
    "mr_enhanced": {"": 5},
    "mr_ge_siemens_nih": {"": 158},
    "mr_toshiba_galan": {"": 26},
}


@pytest.fixture(scope="module")
def everything(shared_data, tmp_path_factory):
    """The data, the state folder and two calls on it."""
    home = tmp_path_factory.mktemp("everything")
    data = shared_data / "data"
    return data, home, index_mutants.index(data, home), index_mutants.index(data, home)


@pytest.fixture(scope="module")
def statuses(everything):
    """Every file's status by its path within the data."""
    data, home, _first, _again = everything
    workspace = Workspace(home / "site")
    catalogue = Catalogue(workspace.catalogue)
    try:
        rows = catalogue.files()
    finally:
        catalogue.close()
    files = find(data, workspace).keyed(workspace.pseudonyms())
    return {file.path.relative_to(data).as_posix(): rows[key].status for key, file in files.items()}


def test_every_file_is_counted_once_and_a_second_call_decodes_none(everything):
    data, home, first, again = everything
    files = sum(len(names) for _folder, _folders, names in os.walk(data))
    assert index_mutants.faults(first, files, home) == []
    assert first.code == again.code == 0
    assert first.errors == again.errors == ""
    assert first.counts["decoded"] > 300
    assert again.counts == {**first.counts, "decoded": 0}


def test_files_that_no_reader_decodes_have_a_reason(statuses):
    found = {path.rpartition("/")[2]: status for path, status in statuses.items()}
    assert {found[name] for name in NOT_DECODED_BY_OTHERS} == {"other_modality"}


NO_DICOM = {Reason.NOT_DICOM, Reason.NEEDS_FAMILY, Reason.PACKED, Reason.SYSTEM_FILE, Reason.EMPTY_FILE}


@pytest.mark.parametrize("folder", REASONS)
def test_each_folder_is_taken_or_refused_for_its_own_reasons(folder, statuses):
    found = Counter(
        status
        for path, status in statuses.items()
        if path.startswith(f"dicom/{folder}/") and status not in NO_DICOM
    )
    assert found == REASONS[folder]


def test_two_thousand_mutants_of_real_files_are_all_accounted_for(shared_data, tmp_path):
    (tmp_path / "good").mkdir()
    good = index_mutants.bases(tmp_path / "good", shared_data / "data" / "dicom")
    made = index_mutants.write_mutants(tmp_path / "bad", good, range(2_600))
    assert sum(made.values()) - made["none"] >= MUTANTS
    done = index_mutants.index(tmp_path / "bad", tmp_path / "home")
    assert index_mutants.faults(done, 2_600, tmp_path / "home") == []
    assert done.code == 0
    again = index_mutants.index(tmp_path / "bad", tmp_path / "home")
    assert again.counts == {**done.counts, "decoded": 0}
