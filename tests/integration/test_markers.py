"""Markers in every corner of DICOM files; nothing that is written, printed or shown holds one.

Each marker is searched as text, in UTF-16, in hexadecimal and in base64, in every byte below the state folder and the
run directory, and in everything that the commands print.
"""

import base64
import json

import pydicom
import pytest
from pydicom.datadict import keyword_dict

from markers import DATE, MARKER, UID_ROOT, Planter, leaks, write_site


def test_the_search_finds_a_marker_in_each_disguise():
    text = f"xx {MARKER}00017 yy"
    for hidden in (
        text.encode(),
        text.encode("utf-16-le"),
        text.encode().hex().encode(),
        base64.b64encode(text.encode()),
        base64.b64encode(b"a" + text.encode()),
        base64.b64encode(b"ab" + text.encode()),
        f"{UID_ROOT}.5".encode(),
        f"born {DATE}".encode(),
    ):
        assert leaks(b"\x93NUMPY" + hidden)
    assert not leaks(b"nothing of the kind")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    planter = Planter()
    archives = tmp_path_factory.mktemp("archives")
    for number, site in enumerate(("north", "south")):
        write_site(archives / site, number + 1, planter)
    return archives, planter


def test_more_than_five_hundred_places_are_planted_in_five_kinds_of_image(planted):
    archives, planter = planted
    assert len(planter.places) >= 500
    for kind in ("CR", "CT", "MR", "US", "SC", "PDF"):
        assert sum(one == kind for one, _ in planter.places) >= 80
    first = next((archives / "north" / "dicom").rglob("*CT-0.dcm"))
    assert first.read_bytes().count(MARKER.encode()) >= 80
    assert pydicom.dcmread(first).PatientID.startswith(MARKER)
    assert "PatientID" in keyword_dict


def test_no_marker_is_in_anything_that_is_written_or_printed(planted, run_hilum, study_file, tmp_path):
    archives, _ = planted
    archive = archives / "north" / "dicom"
    study = study_file(
        federation={"sites": 2, "rounds": 1},
        evaluation={"protocols": ["knn"], "arms": ["federated", "raw"]},
    )
    calls = [
        ("site", "index", archive, "--json"),
        ("site", "index", archive),
        ("site", "status"),
        ("site", "status", "--json"),
        ("site", "describe"),
        ("site", "describe", "--labels", archives / "north" / "labels.csv", "--label", "label"),
        ("site", "quarantine"),
        ("site", "quarantine", "--json"),
        ("site", "quarantine", "show"),
        ("site", "browse"),
        ("site", "browse", "--out", tmp_path / "gallery"),
        ("simulate", study, "--archives", archives, "--out", tmp_path / "run"),
        ("report", tmp_path / "run", "--json"),
        # Calls that fail: their errors name no file of the archive.
        ("site", "index", archive / f"{MARKER}-ward" / "absent"),
        ("site", "index", archive / f"{MARKER}-ward" / f"{MARKER}.txt"),
        ("site", "describe", "--labels", archives / "north" / "labels.csv", "--label", "absent"),
        ("site", "describe", "--labels", archives / "south" / "labels.csv", "--label", "label"),
        ("site", "quarantine", "release", f"{MARKER}00001"),
    ]
    done = {call: run_hilum(*call) for call in calls}
    for call, result in done.items():
        failing = calls.index(call) >= len(calls) - 5 or call[1] == "describe"
        assert failing or result.returncode == 0, (call[:2], result.stderr)
        assert result.returncode != 70, call[:2]
        assert leaks(result.stdout.encode()) == [], call[:2]
        assert leaks(result.stderr.encode()) == [], call[:2]
    counts = json.loads(done[calls[0]].stdout)
    assert counts["volumes"] == 2
    assert counts["skipped"]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    kinds = {path.name for path in written}
    assert {"catalogue.sqlite", "report.html", "index.html", "results.json"} <= kinds
    assert any(path.suffix == ".npy" for path in written)
    for path in written:
        assert leaks(str(path.relative_to(tmp_path)).encode()) == []
        assert leaks(path.read_bytes()) == [], path.relative_to(tmp_path)
