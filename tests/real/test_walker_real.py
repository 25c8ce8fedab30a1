"""Walker and pydicom agree field by field on every real file; skipped where ../shared is absent."""

import subprocess
import sys
from collections import Counter

import pytest

from hilum.client.intake.facts import needs_dataset
from hilum.client.intake.header import read_header
from hilum.client.intake.pydicom_tags import pydicom_tags, silent_pydicom
from hilum.client.intake.read_instance import NeedsPydicom, read_with_pydicom, walk
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.walker import walk_tags

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
def test_every_header_that_was_read_before_gives_the_same_facts(shared_data, archives, source):
    same = 0
    with silent_pydicom():
        for path in files(archives if source == "archives" else shared_data / "data"):
            before, slow, fast = (
                outcome(read_header, path),
                outcome(read_with_pydicom_if_plain, path),
                outcome(walk, path),
            )
            if slow is None:
                continue
            assert isinstance(fast, NeedsPydicom) or fast == slow
            if not isinstance(before, tuple):
                assert_same_facts(slow, before)
                same += 1
    assert same > 400


def read_with_pydicom_if_plain(path):
    """None for objects whose geometry lies in sequences: another test reads those."""
    return None if needs_dataset(pydicom_tags(path)) else read_with_pydicom(path)


def assert_same_facts(found, before):
    [frame] = found.frames
    names = ("sop_uid", "series_uid", "study_uid", "patient_id", "family", "inverted", "padding", "localizer")
    assert [getattr(found, name) for name in names] == [getattr(before, name) for name in names]
    names = ("slope", "intercept", "spacing_mm", "position_mm", "orientation")
    assert [getattr(frame, name) for name in names] == [getattr(before, name) for name in names]
    pixels = found.pixels
    assert (pixels.rows, pixels.columns, pixels.signed) == (before.rows, before.columns, before.signed)
    windows = [
        window and (window.center, window.width, window.function) for window in (frame.window, before.window)
    ]
    assert windows[0] == windows[1]
