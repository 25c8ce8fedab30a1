"""Emptying the inbox frees the disk and loses nothing: what was taken stays indexed, and is not fetched again."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.uid import generate_uid

from dicom_files import MR
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.sources.inbox import Inbox, stated_uid
from hilum.client.intake.sources.inbox_cleanup import empty_inbox
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError
from hilum.common.progress import NullProgress

STORAGE = "1.2.840.10008.5.1.4.1.1."
ULTRASOUND, CAPTURE, REPORT = STORAGE + "6.1", STORAGE + "7", STORAGE + "88.11"


class Site:
    """A site that only receives, and a folder for those tests that have one."""

    def __init__(self, folder):
        self.workspace = Workspace(folder / "hilum-home" / "site")
        self.archive = folder / "archive"

    def put(self, paths):
        with Inbox(self.workspace) as inbox:
            return [inbox.store(stated_uid(path), path.read_bytes()) for path in paths]

    def index(self, archive=None):
        return index_archive(archive, self.workspace, NullProgress())

    def empty(self, older_than_s=0.0):
        return empty_inbox(self.workspace, older_than_s=older_than_s)

    def has(self, path):
        with Inbox(self.workspace) as inbox:
            return inbox.has(stated_uid(path))

    def files(self):
        return [path for path in self.workspace.inbox.rglob("*") if path.is_file()]

    def contents(self):
        """What the cache gives for each item, by shape."""
        catalogue, cache = Catalogue(self.workspace.catalogue), ArrayCache(self.workspace.cache)
        try:
            return {item.item_key: cache.get(item.content_sha256).shape for item in catalogue.items()}
        finally:
            catalogue.close()


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
def series(write_series, tmp_path):
    """Eight slices of one CT series, in their order."""
    volume = np.random.default_rng(3).integers(-900, 900, (8, 16, 16)).astype(np.int16)
    made = write_series(tmp_path / "sent", volume)
    by_uid = {stated_uid(path): path for path in (tmp_path / "sent").iterdir()}
    return [by_uid[one.SOPInstanceUID] for one in made]


def copied(paths, folder):
    folder.mkdir(exist_ok=True)
    for path in paths:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_what_is_settled_goes_and_stays_indexed(site, series, dicom, tmp_path):
    other = tmp_path / "other"
    dicom(other / "radiograph.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8))
    dicom(other / "report.dcm", np.zeros((2, 2), np.uint16), sop_class=REPORT)
    rows, columns = np.mgrid[:160, :240]
    text = Image.fromarray((60 + 0.4 * rows + 0.3 * columns).astype(np.uint8))
    ImageDraw.Draw(text).text((5, 3), "DOE^JANE", font=ImageFont.load_default(size=18), fill=255)
    dicom(other / "held.dcm", np.asarray(text).copy(), sop_class=ULTRASOUND)
    sent = [*series, *other.iterdir()]
    site.put(sent)
    before, contents = site.index(), site.contents()
    size_bytes = sum(path.stat().st_size for path in site.files())
    report = site.empty()
    (held,) = site.files()
    assert held.read_bytes() == (other / "held.dcm").read_bytes()
    assert (report.removed, report.kept) == (10, {"unsettled": 1})
    assert report.freed_bytes == size_bytes - held.stat().st_size
    for _ in range(2):
        after = site.index()
        assert (after.counts, after.decoded, after.removed) == (before.counts, 0, 0)
        assert site.contents() == contents
    assert len(contents) == 2
    assert all(site.has(path) for path in sent)
    assert site.empty().removed == 0


def test_what_comes_again_counts_as_a_copy_and_goes_again(site, series):
    site.put(series)
    site.index()
    contents = site.contents()
    site.empty()
    assert site.put(series[2:5]) == [True] * 3
    report = site.index()
    assert report.counts.skipped == {"duplicate_instance": 3}
    assert site.contents() == contents
    assert site.empty().removed == 3
    assert site.index().counts.skipped == {}
    assert site.contents() == contents
    assert site.files() == []


def test_a_late_slice_is_set_aside_and_spoils_nothing(site, series, dicom, tmp_path):
    site.put(series[:7])
    site.index()
    contents = site.contents()
    site.empty()
    site.put(series[7:])
    dicom(tmp_path / "archive" / "a.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8))
    for archive in (None, site.archive, None):
        report = site.index(archive)
        assert report.counts.skipped == {"series_in_two_places": 1}
        assert contents.items() <= site.contents().items()
    assert site.empty().kept == {"unsettled": 1}
    for path in site.files():
        path.unlink()
    site.index(site.archive)
    assert contents.items() <= site.contents().items()


def test_what_is_new_or_not_indexed_stays_and_its_series_with_it(site, series, tmp_path):
    site.put(series)
    site.index()
    assert site.empty(older_than_s=3600).kept == {"too_new": 8}
    old = time.time() - 7200
    for path in site.files():
        os.utime(path, (old, old))
    site.index()
    os.utime(site.files()[0])
    assert site.empty(older_than_s=3600).kept == {"not_indexed": 1, "series_stays": 7}
    site.index()
    assert site.empty(older_than_s=3600).kept == {"series_stays": 7, "too_new": 1}
    assert len(site.files()) == 8


def test_a_series_that_lies_in_the_folder_too_stays(site, series):
    site.put(series[:4])
    site.index(copied(series[4:], site.archive))
    assert site.empty().kept == {"series_stays": 4}


def test_a_copy_of_what_the_folder_has_goes_and_is_fetched_again_once_the_folder_has_it_no_more(site, series):
    site.index(copied(series, site.archive))
    contents = site.contents()
    site.put(series)
    assert site.index().counts.skipped == {"duplicate_instance": 8}
    assert site.empty().removed == 8
    assert site.index(site.archive).removed == 0
    assert site.contents() == contents
    assert site.has(series[0])
    for path in site.archive.iterdir():
        path.rename(path.with_suffix(".away"))
        path.with_suffix(".away").write_text("no image")
    site.index(site.archive)
    assert site.contents() == {}
    assert not site.has(series[0])
    site.put(series)
    site.index(site.archive)
    assert site.contents() == contents


def test_what_the_cache_lacks_stays(site, series):
    site.put(series)
    site.index()
    next(site.workspace.cache.rglob("*.npy")).unlink()
    assert site.empty().kept == {"series_stays": 8}
    assert len(site.files()) == 8


def test_a_call_that_was_killed_before_it_removed_a_file_loses_nothing(site, series, monkeypatch):
    site.put(series)
    site.index()
    contents = site.contents()

    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            site.empty()
    assert len(site.files()) == 8
    assert site.index().counts.skipped == {"duplicate_instance": 8}
    assert site.contents() == contents
    assert site.empty().removed == 8
    assert site.index().counts.skipped == {}
    assert site.contents() == contents


def test_another_image_of_a_series_leaves_its_volume(site, write_series, dicom, tmp_path):
    uids = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    volume = np.random.default_rng(3).integers(0, 900, (8, 16, 16)).astype(np.uint16)
    write_series(tmp_path / "sent", volume, sop_class=MR, **uids)
    rows, columns = np.mgrid[:60, :80]
    dicom(tmp_path / "late.dcm", (rows + columns).astype(np.uint8), sop_class=CAPTURE, **uids)
    site.put((tmp_path / "sent").iterdir())
    site.index()
    contents = site.contents()
    site.empty()
    site.put([tmp_path / "late.dcm"])
    site.index()
    assert len(site.contents()) == 2
    assert contents.items() <= site.contents().items()
    site.files()[0].unlink()
    assert site.index().removed == 1
    assert site.contents() == contents


def test_the_command_tells_what_went_and_why_the_rest_stayed(site, series, run_hilum, dicom, tmp_path):
    assert run_hilum("site", "empty-inbox").returncode == DataError.exit_code
    site.put(series)
    site.index()
    before = json.loads(run_hilum("site", "status", "--json").stdout)
    size_bytes = sum(path.stat().st_size for path in site.files())
    assert before["inbox"] == {"files": 8, "bytes": size_bytes}
    assert before["free_bytes"] > 0
    assert f"inbox {size_bytes / 1e6:.1f} MB in 8 files" in run_hilum("site", "status").stdout
    assert "8 kept: too new; see --older-than" in run_hilum("site", "empty-inbox").stdout
    done = run_hilum("site", "empty-inbox", "--older-than", 0, "--json")
    assert json.loads(done.stdout) == {"removed": 8, "freed_bytes": size_bytes, "kept": {}}
    after = json.loads(run_hilum("site", "status", "--json").stdout)
    assert after["inbox"] == {"files": 0, "bytes": 0}
    assert (after["instances"], after["volumes"]) == (8, 1)
