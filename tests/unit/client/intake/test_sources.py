"""The folder and the inbox make one catalogue, and a pass over one of them spoils nothing of the other."""

import numpy as np
import pytest
from pydicom.uid import generate_uid

from hilum.client.commands.index import index
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.sources import sources
from hilum.client.intake.sources.inbox import Inbox, stated_uid
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "state")


def volumes(workspace):
    catalogue = Catalogue(workspace.catalogue)
    try:
        return catalogue.counts(), {item.content_sha256 for item in catalogue.items()}
    finally:
        catalogue.close()


@pytest.fixture
def series(write_series, tmp_path):
    """A folder with a CT series of eight slices."""
    volume = np.random.default_rng(3).integers(-900, 900, (8, 16, 16)).astype(np.int16)
    write_series(tmp_path / "archive", volume)
    return tmp_path / "archive"


def put(workspace, paths):
    with Inbox(workspace) as inbox:
        for path in paths:
            inbox.store(stated_uid(path), path.read_bytes())


def test_the_command_walks_the_folder_and_the_inbox_once(series, tmp_path, monkeypatch, capsys):
    scan, walked = sources.scan, []
    monkeypatch.setattr(sources, "scan", lambda folder: walked.append(folder) or scan(folder))
    workspace = Workspace(tmp_path / "home" / "site")
    put(workspace, sorted(series.iterdir())[:1])
    index(series, home=tmp_path / "home")
    assert walked == [series, workspace.inbox]
    assert "indexing: 9/9" in capsys.readouterr().err


def test_the_inbox_gives_the_same_catalogue_as_the_folder(workspace, series, tmp_path):
    other = Workspace(tmp_path / "other")
    index_archive(series, other, NullProgress())
    put(workspace, series.iterdir())
    index_archive(None, workspace, NullProgress())
    assert volumes(workspace) == volumes(other)


def test_a_pass_over_the_inbox_keeps_what_the_folder_gave(workspace, series, dicom, tmp_path):
    index_archive(series, workspace, NullProgress())
    before = volumes(workspace)[1]
    dicom(tmp_path / "new.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8))
    put(workspace, [tmp_path / "new.dcm"])
    report = index_archive(None, workspace, NullProgress())
    assert (report.removed, report.decoded, report.counts.instances) == (0, 1, 9)
    assert before < volumes(workspace)[1]
    again = index_archive(series, workspace, NullProgress())
    assert (again.removed, again.decoded) == (0, 0)


def test_copies_of_the_folder_in_the_inbox_are_duplicates(workspace, series):
    index_archive(series, workspace, NullProgress())
    before = volumes(workspace)[1]
    put(workspace, series.iterdir())
    report = index_archive(None, workspace, NullProgress())
    assert report.counts.skipped == {"duplicate_instance": 8}
    assert report.decoded == 0
    assert volumes(workspace)[1] == before


def test_a_series_in_two_places_is_a_volume_only_of_a_pass_over_both(workspace, series, tmp_path):
    whole = Workspace(tmp_path / "whole")
    index_archive(series, whole, NullProgress())
    moved = sorted(series.iterdir())[:4]
    put(workspace, moved)
    for path in moved:
        path.unlink()
    assert index_archive(series, workspace, NullProgress()).counts.volumes == 1
    assert volumes(workspace)[1] == volumes(whole)[1]

    apart = Workspace(tmp_path / "apart")
    index_archive(series, apart, NullProgress())
    for path in workspace.inbox.rglob("*.dcm"):
        put(apart, [path])
    report = index_archive(None, apart, NullProgress())
    assert report.counts.skipped["series_in_two_places"] == 4
    assert index_archive(series, apart, NullProgress()).counts.skipped == {}
    assert volumes(apart)[1] == volumes(whole)[1]


def test_a_volume_does_not_outlive_slices_that_left_the_inbox(workspace, series):
    moved = sorted(series.iterdir())[:4]
    put(workspace, moved)
    for path in moved:
        path.unlink()
    index_archive(series, workspace, NullProgress())
    for path in list(workspace.inbox.rglob("*.dcm"))[:2]:
        path.unlink()
    report = index_archive(None, workspace, NullProgress())
    assert report.counts.volumes == 0
    assert report.counts.skipped == {"series_in_two_places": 6}
    assert index_archive(series, workspace, NullProgress()).counts.volumes in (
        0,
        1,
    )  # six slices, perhaps with gaps


def test_another_image_of_a_series_in_the_inbox_leaves_the_volume_of_the_folder(
    workspace, write_series, dicom, tmp_path
):
    uids = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    volume = np.random.default_rng(3).integers(-900, 900, (8, 16, 16)).astype(np.int16)
    write_series(tmp_path / "archive", volume, **uids)
    index_archive(tmp_path / "archive", workspace, NullProgress())
    before = volumes(workspace)[1]
    rows, columns = np.mgrid[:60, :80]
    capture = "1.2.840.10008.5.1.4.1.1.7"
    dicom(tmp_path / "capture.dcm", (rows + columns).astype(np.uint8), sop_class=capture, **uids)
    put(workspace, [tmp_path / "capture.dcm"])
    assert index_archive(None, workspace, NullProgress()).counts.volumes == 1
    assert before < volumes(workspace)[1]
