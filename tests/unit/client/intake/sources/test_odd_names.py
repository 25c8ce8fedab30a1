"""Names may be any bytes, of any length and depth; nothing of them ends an index."""

import json
import os
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.indexing.watch import watch
from hilum.client.intake.reasons import Reason
from hilum.client.state.workspace import Pseudonyms, Workspace
from hilum.common.progress import NullProgress
from odd_files import RAMP

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
