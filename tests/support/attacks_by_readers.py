"""What whoever reads all that left the sites can find: everything that the server keeps and logs of a study."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom

from hilum.common.config import load_study
from hilum.common.config.study import MIN_PATIENTS

_SHORT = 4  # shorter texts are found everywhere


def hospitals(archives: Path, out: Path) -> Path:
    """A copy of the archives whose label tables have one more column, which no study names."""
    shutil.copytree(archives, out)
    for path in out.glob("*/labels.csv"):
        first, *lines = path.read_text().splitlines()
        path.write_text("\n".join([f"{first},zzdiagnosis", *[f"{line},zzrare" for line in lines]]) + "\n")
    return out


def attack(table: Any, federation: Any, archives: Path, study_file: Path) -> None:
    """Search the server's state, logs included, for what the sites' archives and label tables hold."""
    task = load_study(study_file).tasks.classification
    _counts(table, federation.home / "runs" / "honest" / "results.json")
    kept = {path: path.read_bytes() for path in _kept(federation)}
    for what, secrets in _secrets(archives, task.label if task else "").items():
        found = sorted(
            {secret for secret in secrets for content in kept.values() if secret.encode() in content}
        )
        outcome = f"{len(found)} of {len(secrets)} found in {len(kept)} files {found[:3] or ''}".strip()
        table.note("a reader of all that left", what, outcome, bool(secrets) and not found)


def _counts(table: Any, path: Path) -> None:
    """Every count is of the threshold's multiples."""
    results = json.loads(path.read_text())
    counts = [site["examples"] for site in results["sites"]]
    counts += [row["n_patients"] for row in results["evaluation"]]
    held = bool(counts) and all(count >= MIN_PATIENTS and count % MIN_PATIENTS == 0 for count in counts)
    table.note("a reader of all that left", "counts of images and patients", str(sorted(set(counts))), held)


def _kept(federation: Any) -> Iterator[Path]:
    yield federation.out / "server.out"
    for folder in (federation.home / "runs", federation.home / "federation"):
        yield from (path for path in folder.rglob("*") if path.is_file())


def _secrets(archives: Path, asked: str) -> dict[str, set[str]]:
    """By kind: file names, patients, UIDs, columns of the label tables but the one that the study names."""
    names: set[str] = set()
    texts: set[str] = set()
    columns: set[str] = set()
    cells: set[str] = set()
    for path in archives.rglob("dicom/**/*"):
        if path.is_file():
            names.add(path.name)
            header = pydicom.dcmread(path, stop_before_pixels=True)
            texts |= {str(header.get(key, "")) for key in _IDENTIFYING}
    for path in archives.glob("*/labels.csv"):
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            columns |= set(reader.fieldnames or ()) - {asked, *_OUR_WORDS}
            cells |= {value for row in reader for key, value in row.items() if key != asked}
    found = {
        "names of files": names,
        "identifying attributes": texts,
        "columns": columns,
        "cells of tables": cells,
    }
    return {kind: {one for one in values if len(one) >= _SHORT} for kind, values in found.items()}


_OUR_WORDS = ("patient", "sop_instance_uid")  # Hilum's own names of columns
_IDENTIFYING = (
    "PatientID",
    "PatientName",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "InstitutionName",
)
