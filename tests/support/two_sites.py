"""What two sites of a test hold, and how their data open."""

import csv

import pydicom

from hilum.common.progress import NullProgress
from hilum.simulations.archives import find_sites, index_sites, open_sites


def rows_of(site):
    with (site / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def write_rows(site, rows):
    with (site / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def opened(folder, study, home):
    sites = find_sites(folder, home)
    index_sites(sites, NullProgress())
    return open_sites(sites, study)


def contents(data, rows):
    return {data.origin.prepared.items[row].content_sha256 for row in rows.tolist()}


def copy_all(two, change=lambda dataset: None):
    """Put all of site-1's images at site-0 too, under the same or other names."""
    renamed = {}
    for path in sorted((two / "site-1" / "dicom").iterdir()):
        dataset = pydicom.dcmread(path)
        before = dataset.SOPInstanceUID
        change(dataset)
        renamed[before] = dataset.SOPInstanceUID
        dataset.save_as(two / "site-0" / "dicom" / f"copy-{path.name}")
    return [{**row, "sop_instance_uid": renamed[row["sop_instance_uid"]]} for row in rows_of(two / "site-1")]


def other_names(dataset):
    """Another patient, study, series and instance, as far as names go."""
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(dataset, name, pydicom.uid.generate_uid(entropy_srcs=[getattr(dataset, name), "other"]))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID = f"OTHER-{dataset.PatientID}"
