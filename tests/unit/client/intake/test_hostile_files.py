"""Files that kill, hang or swell what reads them cost themselves: the others are taken, and the parent stays small."""

import gzip
import io
import struct
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.formats.folder_volume import ReadVolumes, VolumesRead
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.quarantine.store import Quarantine
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox import pool as sandbox_pool
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.state.catalogue import ACCEPTED, Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress

RAS = np.diag([-1.0, -1, 2, 1])
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
ULTRASOUND_CLIP = "1.2.840.10008.5.1.4.1.1.3.1"
# What reads or searches a file does to itself what the file's name or the image's height says.
BEHAVE = """
import ctypes, os, sys, time
import numpy as np
from hilum.client.intake.quarantine import text_detector, text_search
from hilum.client.intake.sandbox import handlers, worker

def misbehave(fault):
    if fault == "segv":
        ctypes.string_at(0)
    elif fault == "exit":
        os._exit(0)
    elif fault == "hang":
        time.sleep(3600)
    elif fault == "grow":
        held = np.ones(7 << 30, np.uint8)
    elif fault == "panic":
        raise BaseException("ZZPHI quoted from the file")

def wrapped(do):
    def behave(job, write):
        misbehave(job.path.name.split("-")[0])
        return do(job, write)
    return behave

for name in ("volumes", "labels", "object"):
    old = handlers.KINDS[name]
    handlers.KINDS[name] = handlers.Kind(old.job, wrapped(old.do), old.result, old.failed)

FAULTS = {162: "segv", 164: "exit", 166: "hang", 168: "grow", 170: "panic"}
has_text = text_search.has_text
def search(image):
    misbehave(FAULTS.get(len(image)))
    return has_text(image)
text_search.has_text = search
worker.main()
"""


@pytest.fixture
def misbehaving(monkeypatch):
    monkeypatch.setattr(sandbox_pool, "_WORKER", ("-c", BEHAVE))


@pytest.fixture
def impatient(monkeypatch):
    """Pools of these modules wait for a second."""
    monkeypatch.setattr("hilum.client.intake.sandbox.limits._READING_S", 0.0)
    for module in ("annotations.annotate", "indexing.index"):
        monkeypatch.setattr(
            f"hilum.client.intake.{module}.DecodePool",
            lambda workers, scratch: DecodePool(workers, scratch=scratch, timeout_s=1.0),
        )


def volume(seed=0, shape=(9, 8, 7)):
    return np.random.default_rng(seed).integers(0, 99, shape).astype(np.int16)


def save(path, array, ras=RAS):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, ras)
    image.header.set_sform(ras, 1)
    nibabel.save(image, path)


def header(shape, kind=16, bits=32):
    """352 bytes that claim a volume of floats."""
    content = bytearray(352)
    struct.pack_into("<i", content, 0, 348)
    struct.pack_into("<8h", content, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<hh", content, 70, kind, bits)
    struct.pack_into("<8f", content, 76, 1, *[1] * 7)
    struct.pack_into("<f", content, 108, 352)
    struct.pack_into("<hh", content, 252, 0, 1)
    for row in range(3):
        struct.pack_into("<4f", content, 280 + 16 * row, *np.eye(4)[row])
    content[344:348] = b"n+1\0"
    return bytes(content)


def zeros(shape, mebibytes):
    """A gzipped volume of zeros, and more of them behind it than it claims."""
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=1) as file:
        file.write(header(shape))
        for _ in range(mebibytes):
            file.write(bytes(1 << 20))
    return content.getvalue()


HOSTILE = {
    "huge.nii": (lambda: header((30_000, 30_000, 30_000)) + bytes(1000), Reason.TRUNCATED_PIXELS),
    "huge.nii.gz": (lambda: gzip.compress(header((30_000, 30_000, 30_000)) + bytes(1000)), Reason.TRUNCATED_PIXELS),
    "long.nii.gz": (lambda: zeros((9, 8, 7), 60), Reason.CONSTANT_PIXELS),
    "bomb.nii.gz": (lambda: zeros((512, 512, 600), 601), Reason.CONSTANT_PIXELS),
    "cut.nii.gz": (lambda: gzip.compress(header((90, 80, 70)) + np.random.default_rng(0).bytes(2_016_000))[:99_000], None),
    "broken.nii.gz": (
        lambda: gzip.compress(header((9, 8, 7)) + bytes(2016))[:30] + b"\xff" * 400_000,
        Reason.DAMAGED_FILE,
    ),
}  # fmt: skip


def statuses(folder, home):
    catalogue, names = Catalogue(Workspace(home).catalogue), Workspace(home).pseudonyms()
    rows = catalogue.files()
    catalogue.close()
    return {path.name: rows[names.of("file", path.name)].status for path in folder.iterdir()}


def measured(script, *words):
    """Run a script in a process of its own. Gives its greatest memory in MiB, without that of its decoding processes."""
    ending = "\nprint(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    done = subprocess.run(
        [sys.executable, "-c", script + ending, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) >> 10


INDEX = """
import sys
from pathlib import Path
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress
index_archive(Path(sys.argv[1]), Workspace(Path(sys.argv[2])), NullProgress(), images="mr")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")
def test_hostile_volumes_of_a_research_folder_are_counted_and_the_parent_stays_small(tmp_path):
    folder, home = tmp_path / "folder", tmp_path / "home"
    for number in range(3):
        save(folder / f"good{number}.nii.gz", volume(number))
    small = measured(INDEX, folder, tmp_path / "small")
    for name, (content, _reason) in HOSTILE.items():
        (folder / name).write_bytes(content())
    assert measured(INDEX, folder, home) < small + 100  # the bomb holds 600 MiB
    found = statuses(folder, home)
    expected = {name: reason for name, (_content, reason) in HOSTILE.items() if reason is not None}
    assert {name: found[name] for name in expected} == expected
    assert found["cut.nii.gz"] in {Reason.DAMAGED_FILE, Reason.TRUNCATED_PIXELS}
    assert {found[f"good{number}.nii.gz"] for number in range(3)} == {ACCEPTED}


@pytest.mark.parametrize("fault", ["segv", "exit", "hang", "grow", "panic"])
def test_a_volume_that_kills_its_reader_costs_itself(tmp_path, misbehaving, impatient, fault):
    folder = tmp_path / "folder"
    for name in ("a.nii", f"{fault}-b.nii", "c.nii.gz"):
        save(folder / name, volume())
    index_archive(folder, Workspace(tmp_path / "home"), NullProgress(), images="mr")
    found = statuses(folder, tmp_path / "home")
    assert found.pop(f"{fault}-b.nii") == reason_of(fault, Reason.DAMAGED_FILE)
    assert set(found.values()) == {ACCEPTED}


def reason_of(fault, broken):
    died = {"hang": Reason.DECODER_TIMEOUT, "grow": Reason.TOO_LARGE, "panic": broken}
    return died.get(fault, Reason.DECODER_DIED)


@pytest.mark.parametrize("fault", ["segv", "hang", "grow", "panic"])
def test_an_annotation_that_kills_its_reader_costs_itself(tmp_path, misbehaving, impatient, fault):
    folder, workspace = tmp_path / "folder", Workspace(tmp_path / "home")
    save(folder / "v.nii", volume())
    index_archive(folder, workspace, NullProgress(), images="mr")
    marks = tmp_path / "marks"
    mask = (volume(1) > 90).astype(np.uint8)
    for name in ("a.nii", f"{fault}-b.nii.gz", "c.nii.gz"):
        save(marks / name, mask)
    mask[0, 0, 0] ^= 1
    save(marks / "c.nii.gz", mask)
    (marks / "pairs.csv").write_text(f"file,mask\nv.nii,a.nii\nv.nii,{fault}-b.nii.gz\nv.nii,c.nii.gz\n")
    (marks / f"{fault}-d.dcm").write_bytes(bytes(128) + b"DICM")
    report = annotate(marks, workspace, LabelMap(), NullProgress())
    reason = reason_of(fault, Reason.MALFORMED_ANNOTATION)
    assert (report.masks, report.skipped) == (2, {str(reason): 2})


SEG_CLASS = b"1.2.840.10008.5.1.4.1.1.66.4\0"


def element(tag, vr, value):
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + struct.pack("<H", len(value)) + value


def segmentation(body):
    """The file meta information of a segmentation, and whatever comes behind it."""
    meta = element(0x00020002, b"UI", SEG_CLASS[:28]) + element(0x00020010, b"UI", b"1.2.840.10008.1.2.1\0")
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta + body


SOP = element(0x00080016, b"UI", SEG_CLASS[:28]) + element(0x00080018, b"UI", b"1.2.3\0")
OPENED = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
NESTED = SOP + OPENED * 20_000
SWOLLEN = SOP + b"\x62\x00\x02\x00OB\0\0" + struct.pack("<I", 0xFFFF_FFF0) + bytes(1000)
ANNOTATE = """
import sys
from pathlib import Path
from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress
import json
report = annotate(Path(sys.argv[1]), Workspace(Path(sys.argv[2])), LabelMap(), NullProgress())
print(json.dumps([report.masks, report.skipped]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")
def test_segmentations_that_nest_or_swell_are_counted_and_the_parent_stays_small(tmp_path):
    folder, home, marks = tmp_path / "folder", tmp_path / "home", tmp_path / "marks"
    save(folder / "v.nii", volume())
    index_archive(folder, Workspace(home), NullProgress(), images="mr")
    save(marks / "v.nii", (volume(1) > 90).astype(np.uint8))
    small = measured(ANNOTATE, marks, home)
    (marks / "nested.dcm").write_bytes(segmentation(NESTED))
    (marks / "swollen.dcm").write_bytes(segmentation(SWOLLEN))
    assert measured(ANNOTATE, marks, home) < small + 100
    report = annotate(marks, Workspace(home), LabelMap(), NullProgress())
    assert report.masks == 1
    assert sum(report.skipped.values()) == 2
    assert set(report.skipped) <= {"malformed_annotation", "too_large", "damaged_header"}


def suspect(height=160):
    rows, columns = np.mgrid[:height, :240]
    return (60 + 0.4 * rows + 0.3 * columns).astype(np.uint8)


def test_an_image_on_which_the_search_for_text_dies_costs_itself(tmp_path, dicom, misbehaving, impatient):
    reasons = {
        162: Reason.DECODER_DIED,
        164: Reason.DECODER_DIED,
        166: Reason.DECODER_TIMEOUT,
        168: Reason.TOO_LARGE,
        170: Reason.UNDECODABLE_PIXELS,
    }
    folder = tmp_path / "archive"
    for height in (160, *reasons, 172):
        dicom(folder / f"{height}.dcm", suspect(height), sop_class=ULTRASOUND)
    workspace = Workspace(tmp_path / "home")
    report = index_archive(folder, workspace, NullProgress())
    found = statuses(folder, tmp_path / "home")
    assert {height: found[f"{height}.dcm"] for height in reasons} == reasons
    assert report.counts.instances == 2
    catalogue = Catalogue(workspace.catalogue)
    assert Quarantine(workspace, catalogue).list_all() == []
    catalogue.close()


def test_a_clip_of_more_than_a_file_may_decode_to_is_refused(tmp_path, dicom):
    folder = tmp_path / "archive"
    dicom(folder / "small.dcm", suspect(), sop_class=ULTRASOUND)
    first = np.zeros((2048, 2), np.uint8)
    dicom(folder / "long.dcm", first, sop_class=ULTRASOUND_CLIP, Columns=2048, NumberOfFrames=600)
    content = (folder / "long.dcm").read_bytes()
    at = content.rindex(b"OB\0\0") + 4
    size = 2048 * 2048 * 600
    with (folder / "long.dcm").open("wb") as file:
        file.write(content[:at] + struct.pack("<I", size))
        file.truncate(at + 4 + size)  # a file with a hole: it takes no room on the disk
    index_archive(folder, Workspace(tmp_path / "home"), NullProgress())
    assert statuses(folder, tmp_path / "home") == {"small.dcm": ACCEPTED, "long.dcm": "too_large"}


def test_large_results_hold_back_the_jobs_behind_them(tmp_path, monkeypatch):
    save(tmp_path / "a.nii", volume())
    monkeypatch.setattr(sandbox_pool, "_HELD_BYTES", 1)
    taken = []

    def jobs():
        for number in range(40):
            taken.append(number)
            yield ReadVolumes(tmp_path / "a.nii")

    with DecodePool(2) as pool:
        results = pool.map(jobs())
        for number in range(5):
            assert isinstance(next(results), VolumesRead)
            assert len(taken) <= number + 5
        assert len(list(results)) == 35
