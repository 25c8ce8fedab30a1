"""Everything that a site keeps can be read by its owner alone, whatever the umask."""

import os

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.sources.inbox import Inbox, stated_uid
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.files import private_folder
from hilum.common.progress import NullProgress

ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
OPEN = ("sh", "-c", 'umask 0 && exec "$@"', "sh")  # the most careless umask there is


@pytest.fixture
def no_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def archive(dicom, write_series, tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "archive"
    write_series(folder, rng.integers(-900, 900, (6, 16, 16)).astype(np.int16))
    rows, columns = np.mgrid[:160, :240]
    image = Image.fromarray((60 + 0.4 * rows + 0.3 * columns).astype(np.uint8))
    ImageDraw.Draw(image).text((5, 3), "DOE^JANE", font=ImageFont.load_default(size=18), fill=255)
    for n in range(2):
        dicom(folder / f"us{n}.dcm", np.roll(np.asarray(image), n, axis=1), sop_class=ULTRASOUND)
    return folder


def open_to_others(folder):
    """What in a folder, and the folder itself, somebody else may read, write or enter."""
    return {
        str(path.relative_to(folder.parent))
        for path in (folder, *folder.rglob("*"))
        if path.lstat().st_mode & 0o077
    }


def test_a_whole_state_folder_is_its_owners_alone(archive, dicom, run_hilum, tmp_path, no_umask):
    workspace = Workspace(tmp_path / "hilum-home" / "site")
    dicom(tmp_path / "sent.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8))
    with Inbox(workspace) as inbox:  # as `pull` and `receive` fill it
        inbox.store(stated_uid(tmp_path / "sent.dcm"), (tmp_path / "sent.dcm").read_bytes())
        assert open_to_others(workspace.folder) == set()
    for words in (
        ("index", archive),
        ("quarantine", "show"),
        ("describe",),
        ("browse",),
        ("browse", "--out", tmp_path / "pages" / "here"),
        ("status",),
    ):
        done = run_hilum("site", *words, before=OPEN)
        assert done.returncode == 0, done.stderr
    held = Catalogue(workspace.catalogue)  # so that SQLite's own files are there to be looked at
    held.items()
    names = {path.name for path in workspace.folder.rglob("*")}
    found = open_to_others(workspace.folder)
    held.close()
    kept = {"catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-shm", "answers.sqlite", "site.key"}
    assert names >= {
        *kept,
        ".lock",
        "cache",
        "inbox",
        "incoming",
        "quarantine",
        "gallery",
        "quarantine-gallery",
    }
    assert len([name for name in names if name.endswith(".npy")]) >= 4
    assert found == set()
    assert open_to_others(tmp_path / "hilum-home") == set()
    assert open_to_others(tmp_path / "pages") == set()


def test_without_the_command_the_folder_itself_is_closed(archive, tmp_path, no_umask):
    workspace = Workspace(tmp_path / "state")
    index_archive(archive, workspace, NullProgress())
    assert workspace.folder.stat().st_mode & 0o777 == 0o700
    assert workspace.catalogue.stat().st_mode & 0o777 == 0o600


def test_a_state_folder_that_was_open_is_closed_when_it_is_used(archive, run_hilum, tmp_path):
    folder = tmp_path / "hilum-home" / "site"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert run_hilum("site", "index", archive).returncode == 0
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_private_folder_is_made_with_all_that_is_missing_above_it(tmp_path, no_umask):
    private_folder(tmp_path / "a" / "b" / "c")
    assert [open_to_others(tmp_path / "a")] == [set()]
