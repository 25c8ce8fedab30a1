"""Whatever lies in an archive is an image or counted under a true reason; nothing of it ends an index."""

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from contextlib import nullcontext
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.formats.not_dicom import what_it_is
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.indexing.watch import watch
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sources.inbox_cleanup import empty_inbox
from hilum.client.intake.sources.scan import scan
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Pseudonyms, Workspace
from hilum.common.progress import NullProgress

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8)
ODD_NAMES = [
    b"f\xfcr_\xe9\xff.dcm",  # latin-1
    b"\xff\xfe",
    b"\xed\xa0\x80.dcm",  # a surrogate, in bytes that UTF-8 forbids
    b"new\nline.dcm",
    b"tab\tbell\x07escape\x1b[31m",
    b" blanks around ",
    b"back\\slash",
    b"-rf",
    b"%s {x} [bold] $(y) 'z' \"w\"",
    "\u202eright to left".encode(),
    b"a" * 255,
    b"\xe9" * 255,
]


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


@pytest.fixture
def index(archive, tmp_path):
    def run(**options):
        return index_archive(archive, Workspace(tmp_path / "state"), NullProgress(), **options).counts

    return run


def put(archive, name, content):
    """Write a file under a name of any bytes."""
    path = Path(os.fsdecode(os.fsencode(archive) + b"/" + name))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["read here", "by a worker"])
def test_an_image_is_taken_whatever_its_name(archive, index, dicom, tmp_path, syntax):
    for number, name in enumerate(ODD_NAMES):
        dicom(tmp_path / "one.dcm", RAMP + np.uint16(number), syntax=syntax)
        put(archive, name, (tmp_path / "one.dcm").read_bytes())
    counts = index()
    assert (counts.files, counts.instances, counts.skipped) == (len(ODD_NAMES), len(ODD_NAMES), {})


@pytest.mark.parametrize("name", [b"\xe4.png", b"f\xfc\xff.nii", b"new\nline.png"])
def test_a_research_file_is_taken_whatever_its_name(archive, index, tmp_path, name):
    pixels = np.random.default_rng(1).integers(0, 255, (5, 6, 7)).astype(np.uint8)
    if name.endswith(b"nii"):
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), tmp_path / "a.nii")
        content = (tmp_path / "a.nii").read_bytes()
    else:
        Image.fromarray(pixels[0]).save(tmp_path / "a.png")
        content = (tmp_path / "a.png").read_bytes()
    put(archive, name, content)
    assert index(images="mr").instances == 1


def test_names_that_differ_in_odd_bytes_alone_are_different_files(archive, index, dicom):
    pseudonyms = Pseudonyms(b"k" * 32)
    names = [os.fsdecode(name) for name in ODD_NAMES]
    assert len({pseudonyms.of("file", name) for name in (*names, "\ud800", "\udc80")}) == len(names) + 2
    dicom(archive / "one.dcm", RAMP)
    for number in range(0x80, 0x90):
        put(archive, bytes([number]), b"not an image")
    assert index().skipped == {Reason.NOT_DICOM: 16}


def test_a_folder_is_walked_however_deep(archive, index, dicom):
    dicom(archive / "one.dcm", RAMP)
    here = Path.cwd()
    try:
        os.chdir(archive)
        for _ in range(1200):  # deeper than Python recurses
            Path("d").mkdir()
            os.chdir("d")
        dicom(Path("deep.dcm"), RAMP)
        for _ in range(20):  # and then longer than the system opens
            Path("e" * 250).mkdir()
            os.chdir("e" * 250)
        Path("beyond.dcm").write_bytes(b"x")
    finally:
        os.chdir(here)
    counts = index()
    assert (counts.instances, counts.skipped) == (2, {Reason.PATH_TOO_LONG: 1})
    subprocess.run(["rm", "-rf", archive], check=True)  # shutil.rmtree recurses


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


def _zip(name="image.dcm"):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        if name:
            packed.writestr(name, "x")
    return content.getvalue()


def _tar():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as packed:
        packed.addfile(tarfile.TarInfo("image.dcm"))
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.zip", _zip(), Reason.PACKED),
        ("named-otherwise.dcm", _zip(), Reason.PACKED),
        ("none.zip", _zip(""), Reason.PACKED),
        ("report.docx", _zip("[Content_Types].xml"), Reason.NOT_DICOM),
        ("notes.odt", _zip("mimetype"), Reason.NOT_DICOM),
        ("arrays.npz", _zip("images.npy"), Reason.NOT_DICOM),
        ("tape", _tar(), Reason.PACKED),
        ("old.tar", b"v7 has no mark" + bytes(600), Reason.PACKED),
        ("a.tar.gz", gzip.compress(_tar()), Reason.PACKED),
        ("a.dcm.gz", gzip.compress(b"x"), Reason.PACKED),
        ("a.dcm.bz2", bz2.compress(b"x"), Reason.PACKED),
        ("a.dcm.xz", lzma.compress(b"x"), Reason.PACKED),
        ("seven", b"7z\xbc\xaf\x27\x1c" + bytes(30), Reason.PACKED),
        ("roshal", b"Rar!\x1a\x07\x01\x00" + bytes(30), Reason.PACKED),
        ("._one.dcm", b"\x00\x05\x16\x07" + bytes(80), Reason.SYSTEM_FILE),
        ("._one.png", b"\x00\x05\x16\x07" + bytes(80), Reason.SYSTEM_FILE),
        (".DS_Store", b"\x00\x00\x00\x01Bud1", Reason.SYSTEM_FILE),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0", Reason.SYSTEM_FILE),
        ("volume.nii.gz", gzip.compress(b"x"), Reason.NEEDS_FAMILY),
        ("slice.PNG", b"\x89PNG", Reason.NEEDS_FAMILY),
        ("notes.txt", b"hello", Reason.NOT_DICOM),
        ("empty.dcm", b"", Reason.EMPTY_FILE),
        ("empty.png", b"", Reason.EMPTY_FILE),
    ],
    ids=lambda value: (
        "" if isinstance(value, bytes) else str(value)
    ),  # archives hold the time, and ids must not
)
def test_a_file_that_is_no_dicom_counts_as_what_it_is(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    [found] = scan(tmp_path)
    assert (found.set_aside or what_it_is(found.path)) == reason


def test_what_a_file_is_reaches_the_counts(archive, index):
    (archive / "a.zip").write_bytes(_zip())
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


def test_a_watch_goes_on_over_odd_names(archive, dicom, tmp_path):
    dicom(tmp_path / "one.dcm", RAMP)
    put(archive, b"\xff.dcm", (tmp_path / "one.dcm").read_bytes())
    (archive / "loop").symlink_to(".")
    stop, reports = threading.Event(), []

    def tell(report):
        reports.append(report.counts)
        stop.set()

    show = lambda _title, _total: nullcontext(NullProgress())  # noqa: E731
    watch(archive, Workspace(tmp_path / "state"), 0.01, stop, show, tell, pytest.fail)
    assert (reports[0].files, reports[0].instances) == (2, 1)


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


@pytest.fixture
def hilum(tmp_path):
    """Run the command line with paths of any bytes, into a terminal that takes ASCII alone."""

    def run(*words, **environment):
        return subprocess.run(
            [str(Path(sys.executable).parent / "hilum"), *words],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii:strict", **environment},
            cwd=tmp_path,
            check=False,
        )

    return run


@pytest.mark.parametrize("place", [b"h\xf6me ?a=b#c %20", b"new\nline", "\u202ehome".encode()])
def test_state_and_archive_may_lie_at_any_path(hilum, dicom, tmp_path, place):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + place))
    dicom(folder / "archive" / "one.dcm", RAMP)
    home = ("--home", os.fsencode(folder / "home"))
    done = hilum("site", "index", os.fsencode(folder / "archive"), *home, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["instances"] == 1
    assert (folder / "home" / "site" / "catalogue.sqlite").stat().st_size > 0, "where it was asked for"
    for words in (("status",), ("status", "--json"), ("browse", "--out", os.fsencode(folder / "gallery"))):
        done = hilum("site", *words, *home, LC_ALL="C")
        assert done.returncode == 0, done.stderr
    assert (folder / "gallery" / "index.html").exists()


def test_annotations_are_tied_to_images_with_odd_names(archive, index, tmp_path):
    odd = [b"\xe4.png", b" blank .png", b"back\\slash.png", "gr\u00fcn.png".encode()]
    rng = np.random.default_rng(3)
    for name in odd:
        Image.fromarray(rng.integers(0, 255, (20, 20)).astype(np.uint8)).save(tmp_path / "x.png")
        put(archive, name, (tmp_path / "x.png").read_bytes())
    assert index(images="radiograph").instances == len(odd)
    notes = tmp_path / "notes"
    notes.mkdir()
    rows = [b"file,label,x,y,width,height", *(name + b",nodule,1,1,5,5" for name in odd)]
    rows.append(b"\xfc.png,nodule,1,1,5,5")
    rows.append("gr\u00fcn.png".encode() + b",f\xe4rbung,1,1,5,5")  # a label that is not UTF-8
    rows.append(
        "gr\u00fcn.png".encode("latin-1") + b",mass,1,1,5,5"
    )  # the table of one system, the disk of another
    put(notes, b"b\xf6xes.csv", b"\n".join(rows) + b"\n")
    put(notes, b"\xff", b"not an annotation")
    wide = "file,label,x,y,width,height\ngr\u00fcn.png,wide,1,1,5,5\n"
    put(notes, b"wide.csv", wide.encode("utf-16"))
    os.mkfifo(notes / "pipe.nii")
    report = annotate(notes, Workspace(tmp_path / "state"), LabelMap(), NullProgress())
    assert (report.files, report.boxes) == (4, len(odd) + 2)
    assert report.skipped == {
        Reason.UNKNOWN_IMAGE: 1,
        Reason.UNMAPPED_LABEL: 1,
        Reason.NOT_AN_ANNOTATION: 1,
        Reason.NOT_A_FILE: 1,
    }


def test_a_mask_is_tied_by_its_odd_name(archive, index, tmp_path):
    volume = np.random.default_rng(1).integers(0, 99, (6, 7, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii")
    content = (tmp_path / "v.nii").read_bytes()
    for name in (b"\xe4.nii", b"\xf6.nii"):
        put(archive, name, content)
    index(images="mr")
    mask = np.zeros(volume.shape, np.uint8)
    mask[2:4, 2:4, 2:4] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "m.nii")
    notes = tmp_path / "notes"
    notes.mkdir()
    put(notes, b"\xe4.nii", (tmp_path / "m.nii").read_bytes())
    put(notes, b"m\xe4sk.nii", (tmp_path / "m.nii").read_bytes())
    put(notes, b"ties.csv", b"mask,file\nm\xe4sk.nii,\xf6.nii\n")
    report = annotate(notes, Workspace(tmp_path / "state"), LabelMap(), NullProgress())
    assert (report.masks, report.images, report.skipped) == (2, 2, {})
