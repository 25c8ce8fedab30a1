"""Whatever lies in an archive is an image or counted under a true reason: links, pipes, what vanishes or grows."""

import os
import shutil
import socket

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from hilum.client.intake.formats.not_dicom import what_it_is
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sources.inbox_cleanup import empty_inbox
from hilum.client.intake.sources.scan import scan
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress
from odd_files import RAMP, zipped


def test_a_link_to_a_file_is_that_file_and_one_to_a_folder_is_not_followed(archive, index, dicom, tmp_path):
    dicom(archive / "folder" / "one.dcm", RAMP)
    dicom(tmp_path / "outside" / "two.dcm", RAMP + np.uint16(1))
    (archive / "two.dcm").symlink_to(tmp_path / "outside" / "two.dcm")
    (archive / "copy.dcm").symlink_to("folder/one.dcm")
    os.link(archive / "folder" / "one.dcm", archive / "hard.dcm")
    (archive / "loop").symlink_to(".")
    (archive / "up").symlink_to("..")
    (archive / "outside").symlink_to(tmp_path / "outside")
    (archive / "nowhere").symlink_to("nothing")
    (archive / "round").symlink_to("about")
    (archive / "about").symlink_to("round")
    counts = index()
    assert (counts.files, counts.instances) == (10, 2)
    assert counts.skipped == {Reason.DUPLICATE: 2, Reason.LINKED_FOLDER: 3, Reason.DANGLING_LINK: 3}


def test_what_is_not_a_file_is_never_opened(archive, index, dicom, monkeypatch):
    dicom(archive / "one.dcm", RAMP)
    os.mkfifo(archive / "pipe.png")
    monkeypatch.chdir(archive)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.nii")
        (archive / "device.dcm").symlink_to("/dev/zero")
        assert index().skipped == {Reason.NOT_A_FILE: 3}
        assert index(images="mr").skipped == {Reason.NOT_A_FILE: 3}


def test_a_pipe_that_took_the_place_of_a_file_is_not_waited_for(tmp_path):
    from hilum.client.intake.headers.read_instance import walk
    from hilum.client.intake.reasons import Skip

    os.mkfifo(tmp_path / "was-a-file.dcm")
    with pytest.raises(Skip, match=Reason.NOT_DICOM):
        walk(tmp_path / "was-a-file.dcm")
    assert what_it_is(tmp_path / "was-a-file.dcm") == Reason.NOT_DICOM


def test_what_a_file_is_reaches_the_counts(archive, index):
    (archive / "a.zip").write_bytes(zipped())
    (archive / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (archive / "empty.png").write_bytes(b"")
    assert index().skipped == {Reason.PACKED: 1, Reason.SYSTEM_FILE: 1, Reason.EMPTY_FILE: 1}


def test_what_macos_leaves_beside_a_picture_is_no_broken_picture(archive, index):
    Image.fromarray(RAMP.astype(np.uint8)).save(archive / "one.png")
    shutil.copy(archive / "one.png", archive / "._real.png")
    (archive / "._one.png").write_bytes(b"\x00\x05\x16\x07" + bytes(80))
    counts = index(images="radiograph")
    assert (counts.instances, counts.skipped) == (2, {Reason.SYSTEM_FILE: 1})


def test_dicom_files_named_as_pictures_are_read_as_dicom(archive, index, dicom, tmp_path):
    dicom(archive / "one.png", RAMP)
    dicom(archive / "two.jpg", RAMP + np.uint16(1), syntax=RLELossless)
    Image.fromarray(RAMP.astype(np.uint8)).save(archive / "three.png")
    assert index().instances == 2
    counts = index(images="radiograph")
    assert (counts.instances, counts.skipped) == (3, {})
    report = index_archive(archive, Workspace(tmp_path / "state"), NullProgress(), images="radiograph")
    assert (report.counts, report.decoded) == (counts, 0), "and not again"


def test_sparse_files_of_a_tebibyte_cost_nothing(archive, index, dicom):
    dicom(archive / "one.dcm", RAMP)
    for name, start in (("raw", b""), ("header.dcm", bytes(128) + b"DICM"), ("a.nii", b"\x5c\x01\x00\x00")):
        with (archive / name).open("wb") as file:
            file.write(start)
            try:
                file.truncate(1 << 40)
            except OSError:
                pytest.skip("this file system has no sparse files of a tebibyte")
    counts = index(images="mr")
    assert (counts.files, counts.instances) == (4, 1)
    assert counts.skipped == {Reason.NOT_DICOM: 1, Reason.DAMAGED_HEADER: 1, Reason.DAMAGED_FILE: 1}


def test_files_that_vanish_or_grow_while_an_index_runs_are_settled_by_the_next(
    archive, index, dicom, monkeypatch
):
    for number in range(3):
        dicom(archive / f"{number}.dcm", RAMP + np.uint16(number))
    whole = (archive / "1.dcm").read_bytes()
    (archive / "1.dcm").write_bytes(whole[:-64])

    def changing(folder):
        yield from list(scan(folder))
        (archive / "0.dcm").unlink(missing_ok=True)
        (archive / "1.dcm").write_bytes(whole)

    monkeypatch.setattr("hilum.client.intake.sources.sources.scan", changing)
    first = index()
    assert (first.files, first.instances + sum(first.skipped.values())) == (3, 3)
    assert first.skipped == {Reason.UNREADABLE: 1}
    monkeypatch.undo()
    second = index()
    assert (second.files, second.instances, second.skipped) == (2, 2, {})


def test_a_folder_that_is_gone_when_it_is_its_turn_is_not_there(archive, dicom):
    dicom(archive / "a" / "one.dcm", RAMP)
    dicom(archive / "b" / "two.dcm", RAMP)
    found = scan(archive)
    assert next(found).path.name == "one.dcm"
    shutil.rmtree(archive / "b")
    assert list(found) == []


def test_a_link_to_a_picture_is_no_second_patient(archive, index):
    rng = np.random.default_rng(1)
    (archive / ".store").mkdir()
    Image.fromarray(rng.integers(0, 255, (8, 9)).astype(np.uint8)).save(archive / ".store" / "content.png")
    (archive / "named.png").symlink_to(".store/content.png")
    nibabel.save(
        nibabel.Nifti1Image(rng.integers(0, 9, (5, 6, 7)).astype(np.int16), np.eye(4)), archive / "v.nii"
    )
    os.link(archive / "v.nii", archive / "w.nii")
    (archive / "broken.png").write_bytes(b"x")
    (archive / "link-to-broken.png").symlink_to("broken.png")
    counts = index(images="mr")
    assert (counts.instances, counts.volumes, counts.patients) == (2, 1, 2)
    assert counts.skipped == {Reason.DUPLICATE: 2, Reason.DAMAGED_FILE: 2}
    assert index(images="mr") == counts
    (archive / "v.nii").unlink()
    assert index(images="mr").volumes == 1, "its other name stands in"


def test_a_label_table_finds_a_linked_picture_by_the_name_outside_of_hidden_folders(archive, index, tmp_path):
    from hilum.client.state.labels import read_labels

    (archive / ".git").mkdir()
    Image.fromarray(RAMP.astype(np.uint8)).save(archive / ".git" / "0.png")
    (archive / "P1.png").symlink_to(".git/0.png")
    index(images="radiograph")
    (tmp_path / "labels.csv").write_text("file,patient,label\nP1.png,P1,yes\n")
    workspace = Workspace(tmp_path / "state")
    catalogue = Catalogue(workspace.catalogue)
    try:
        found = read_labels(tmp_path / "labels.csv", "label", catalogue, workspace.pseudonyms())
    finally:
        catalogue.close()
    assert list(found.label_of.values()) == ["yes"]


def test_what_somebody_put_into_the_inbox_is_left_there(dicom, tmp_path):
    workspace = Workspace(tmp_path / "state")
    dicom(workspace.inbox / "one.dcm", RAMP)
    (workspace.inbox / "folder").symlink_to(tmp_path)
    os.mkfifo(workspace.inbox / "pipe")
    assert index_archive(None, workspace, NullProgress()).counts.skipped == {
        Reason.LINKED_FOLDER: 1,
        Reason.NOT_A_FILE: 1,
    }
    report = empty_inbox(workspace, older_than_s=0)
    assert (report.removed, report.kept) == (1, {"unsettled": 2})
