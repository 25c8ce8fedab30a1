"""The shared cases of volumes, spacings, patients and burned-in text: each gives what it says is right."""

import json
import subprocess
import sys

import numpy as np
import pytest

from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress


@pytest.fixture
def case(shared_data, tmp_path):
    """Make a case by its number, index it, and give the counts, the items, their arrays and what was expected."""

    def make(number):
        scripts = list((shared_data / "cases" / "dicom").glob(f"{number}_*.py"))
        if not scripts:
            pytest.skip(f"the shared case {number} is not here")
        subprocess.run([sys.executable, scripts[0], tmp_path], check=True, capture_output=True)
        workspace = Workspace(tmp_path / "state")
        counts = index_archive(tmp_path / "dicom", workspace, NullProgress()).counts
        catalogue = Catalogue(workspace.catalogue)
        items = catalogue.items()
        catalogue.close()
        arrays = [ArrayCache(workspace.cache).get(item.content_sha256) for item in items]
        expected = json.loads((tmp_path / "expected.json").read_text())
        if (tmp_path / "expected.npy").exists():
            expected["voxels"] = np.load(tmp_path / "expected.npy")
        return counts, items, arrays, expected

    return make


def test_a_spacing_of_another_vr_is_read(case):
    _counts, (item,), (array,), expected = case(14)
    assert list(item.spacing_mm) == expected["spacing"]
    np.testing.assert_array_equal(array, expected["voxels"])


@pytest.mark.parametrize("number", [15, 51])
def test_radiographs_of_unusable_spacing_are_taken_without_one(case, number):
    counts, items, _arrays, expected = case(number)
    assert (counts.instances, counts.skipped) == (expected["images"], {})
    assert {item.spacing_mm for item in items} == {()}


def test_a_frame_of_reference_for_each_slice_loses_no_volume(case):
    counts, _items, (array,), expected = case(21)
    assert (counts.volumes, counts.skipped) == (expected["volumes"], {})
    np.testing.assert_array_equal(array, expected["voxels"])


def test_burned_in_text_that_is_told_holds_an_image(case):
    counts, _items, _arrays, expected = case(24)
    assert counts.skipped == {"quarantined_possible_text": expected["quarantined"]}


def test_overlapping_passes_are_told_apart(case):
    counts, _items, arrays, expected = case(30)
    assert counts.skipped == {}
    first, second = expected["voxels"]
    for one in (first, second):  # once by acquisition number, once by instance number
        assert sum(np.array_equal(array, one) for array in arrays) == 2
    assert len(arrays) == 4


def test_padding_makes_no_other_patient(case):
    counts, _items, _arrays, expected = case(50)
    assert (counts.instances, counts.patients) == (expected["images"], expected["patients"])
