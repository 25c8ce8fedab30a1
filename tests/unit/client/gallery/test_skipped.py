"""`hilum site skipped` names files that were set aside, to the person who asks and to nobody else."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hilum.client.gallery.skipped import shown

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8)


@pytest.fixture
def indexed(run_hilum, dicom, tmp_path):
    """Three texts, one of an odd name, a ZIP file and two images, indexed."""
    folder = tmp_path / "archive"
    dicom(folder / "a.dcm", RAMP)
    dicom(folder / "b.dcm", RAMP + np.uint16(1))
    (folder / "ZZPHI").mkdir()
    for name in ("ZZPHI/one.txt", "ZZPHI/two.txt", os.fsdecode(b"ZZPHI/\xff\n.txt")):
        (folder / name).write_text("hello")
    (folder / "c.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    done = run_hilum("site", "index", folder)
    assert done.returncode == 0, done.stderr
    assert "hilum site skipped" in done.stdout, "the summary says where to look"
    return folder


def test_all_reasons_are_listed_the_most_frequent_first(run_hilum, indexed):
    done = run_hilum("site", "skipped")
    assert done.returncode == 0, done.stderr
    heads = [line.split()[:2] for line in done.stdout.splitlines() if line.split()[0].isdigit()]
    assert heads == [["3", "not_dicom:"], ["1", "packed_files:"]]
    assert str(indexed / "ZZPHI" / "two.txt") in done.stdout
    assert "a.dcm" not in done.stdout


def test_one_reason_is_one_path_a_line(run_hilum, indexed):
    done = run_hilum("site", "skipped", "not_dicom")
    lines = done.stdout.splitlines()
    assert lines[:2] == [str(indexed / "ZZPHI" / name) for name in ("one.txt", "two.txt")]
    assert lines[2].startswith("$'")
    assert len(lines) == 3
    told = subprocess.run(["bash", "-c", f"cat {lines[2]}"], capture_output=True, check=True)
    assert told.stdout == b"hello", "a shell takes the line as it is"


def test_json_gives_back_every_byte_of_a_name(run_hilum, indexed):
    done = run_hilum("site", "skipped", "--json")
    first, second = json.loads(done.stdout)
    assert (first["reason"], first["count"], len(first["paths"])) == ("not_dicom", 3, 3)
    assert (second["reason"], second["paths"]) == ("packed_files", [str(indexed / "c.zip")])
    assert {path.name for path in (indexed / "ZZPHI").iterdir()} == {Path(p).name for p in first["paths"]}


def test_more_than_a_few_files_of_a_reason_are_counted(run_hilum, indexed):
    for number in range(9):
        (indexed / f"{number}.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    run_hilum("site", "index", indexed)
    text = run_hilum("site", "skipped").stdout
    assert text.count(".zip") == 5
    assert "and 5 more: `hilum site skipped packed_files` lists all" in text
    assert run_hilum("site", "skipped", "packed_files").stdout.count(".zip") == 10


def test_files_that_are_gone_are_counted(run_hilum, indexed):
    (indexed / "c.zip").unlink()
    done = run_hilum("site", "skipped", "packed_files")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("1 more are not there any longer")


def test_a_folder_that_has_moved_is_named(run_hilum, indexed, tmp_path):
    indexed.rename(tmp_path / "elsewhere")
    done = run_hilum("site", "skipped")
    assert done.returncode == 3
    assert "--folder" in done.stderr
    done = run_hilum("site", "skipped", "packed_files", "--folder", tmp_path / "elsewhere")
    assert done.stdout.splitlines() == [str(tmp_path / "elsewhere" / "c.zip")]


def test_an_unknown_reason_names_the_nearest(run_hilum, indexed):
    done = run_hilum("site", "skipped", "not_dikom")
    assert done.returncode == 3
    assert "did you mean not_dicom?" in done.stderr


def test_no_path_is_written_anywhere_nor_told_to_others(run_hilum, indexed, tmp_path):
    for words in (("skipped",), ("skipped", "--json"), ("skipped", "not_dicom")):
        done = run_hilum("site", *words)
        assert "ZZPHI" in done.stdout
        assert "ZZPHI" not in done.stderr
    for words in (("status",), ("describe", "--json"), ("browse", "--out", tmp_path / "gallery")):
        assert "ZZPHI" not in (done := run_hilum("site", *words)).stdout + done.stderr
    written = [*(tmp_path / "hilum-home").rglob("*"), *(tmp_path / "gallery").rglob("*")]
    assert not [path for path in written if path.is_file() and b"ZZPHI" in path.read_bytes()]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("plain name.dcm", "plain name.dcm"),
        ("gr\u00fcn.dcm", "gr\u00fcn.dcm"),
        ("new\nline", r"$'new\x0aline'"),
        ("it's \\ \x1b", r"$'it\'s \\ \x1b'"),
        ("\udcff", r"$'\xff'"),
        ("\u202etxt.exe", r"$'\xe2\x80\xaetxt.exe'"),
        ("$'x'", r"$'$\'x\''"),
    ],
)
def test_a_name_is_shown_on_one_line(name, line):
    assert shown(Path(name)) == line
