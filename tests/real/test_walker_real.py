"""Walker and pydicom agree field by field on every real file; skipped where ../shared is absent."""

import subprocess
import sys
from collections import Counter

import pytest

from hilum.client.intake.headers.pydicom_tags import pydicom_tags
from hilum.client.intake.headers.read_instance import NeedsPydicom, read_with_pydicom, walk
from hilum.client.intake.headers.walker import walk_tags
from hilum.client.intake.reasons import Reason, Skip

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def archives(shared_data, tmp_path_factory):
    """Real radiographs and brain volumes as the DICOM archives of hospitals."""
    out = tmp_path_factory.mktemp("archives")
    for kind, source in (("cxr", "cxr_nih_a"), ("mr3d", "mr_hippocampus_a")):
        wrap = [sys.executable, str(shared_data / "tools" / "wrap_as_dicom.py"), kind]
        subprocess.run(
            [*wrap, str(shared_data / "data" / source), str(out / kind)], check=True, capture_output=True
        )
    return out


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def outcome(read, path):
    try:
        return read(path)
    except Skip as skip:
        return skip.reason, skip.uids


def compare(folder):
    """How many files each way answered; every answer of the walker must be pydicom's."""
    found = Counter()
    for path in files(folder):
        fast, slow = outcome(walk_tags, path), outcome(pydicom_tags, path)
        if fast is None:
            found["pydicom"] += 1
            continue
        assert fast == slow
        found["not DICOM" if fast == (Reason.NOT_DICOM, ("", "", "")) else "walker"] += 1
    return found


def test_walker_and_pydicom_give_the_same_tags_of_everything_at_hand(shared_data):
    found = compare(shared_data / "data")
    assert found.total() == len(files(shared_data / "data"))
    assert found["walker"] > 500
    assert found["pydicom"] < 30


def test_walker_and_pydicom_give_the_same_tags_of_whole_archives(archives):
    found = compare(archives)
    assert found["walker"] > 4900
    assert found["pydicom"] == 0


@pytest.mark.parametrize("source", ["data", "archives"])
def test_walker_and_pydicom_give_the_same_facts(shared_data, archives, source):
    same = 0
    for path in files(archives if source == "archives" else shared_data / "data"):
        slow, fast = outcome(read_with_pydicom, path), outcome(walk, path)
        assert isinstance(fast, NeedsPydicom) or fast == slow
        same += not isinstance(slow, tuple)
    assert same > 400
