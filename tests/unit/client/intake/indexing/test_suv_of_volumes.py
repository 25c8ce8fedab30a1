"""SUV of indexed PET: one factor a volume or a reason, kept at the site, and looked for once in what an earlier Hilum indexed."""

import json
import sqlite3
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from sqlalchemy import update

from hilum.client.commands.status import status_json, status_lines
from hilum.client.disclosure.describe import describe_site, description
from hilum.client.gallery.status import site_status
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.no_suv import NoSuv
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.tables import ITEMS
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress
from pet_files import DOSE_BQ, F18_S, PET, WEIGHT_KG, injection, pet

AN_HOUR_LATER = WEIGHT_KG * 1000 / (DOSE_BQ * 0.5 ** (3600 / F18_S))
VOLUME = np.random.default_rng(0).integers(0, 9000, (6, 8, 8)).astype(np.uint16)


@pytest.fixture
def archive(tmp_path):
    return tmp_path / "dicom"


@pytest.fixture
def indexed(archive, tmp_path):
    """Index the archive, and give the workspace and its PET volumes."""
    workspace = Workspace(tmp_path / "state")

    def index(**told):
        index_archive(archive, workspace, NullProgress(), **told)
        return workspace, volumes(workspace)

    return index


def volumes(workspace):
    catalogue = Catalogue(workspace.catalogue)
    try:
        return catalogue.items(family="pet", kind="volume")
    finally:
        catalogue.close()


def forget_suv(workspace):
    """Leave the catalogue as an earlier Hilum left it."""
    catalogue = Catalogue(workspace.catalogue)
    with catalogue.database.transaction() as connection:
        for item in volumes(workspace):
            quality = json.loads(item.quality)
            del quality["suv"]
            same = ITEMS.c.item_key == item.item_key  # of NIfTI it kept nothing at all
            connection.execute(
                update(ITEMS).where(same).values(quality=json.dumps(quality) if quality else "")
            )
    catalogue.close()


def test_a_volume_has_the_factor_of_its_slices(write_series, archive, indexed):
    write_series(archive, VOLUME, sop_class=PET, **pet())
    _, (item,) = indexed()
    assert item.suv == pytest.approx(AN_HOUR_LATER)
    assert (item.units, item.family) == ("arbitrary", "pet")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientWeight": 71.0}, NoSuv.SLICES_DIFFER),
        ({"PatientWeight": None}, NoSuv.WEIGHT),
        ({"AcquisitionTime": "095900"}, NoSuv.OTHER_START),
        ({"Units": "GML"}, NoSuv.SLICES_DIFFER),
    ],
)
def test_one_slice_that_says_otherwise_takes_the_factor_away(
    write_series, dicom, archive, indexed, changes, reason
):
    first = write_series(archive, VOLUME, sop_class=PET, **pet())[2]
    kept = (
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "ImagePositionPatient",
        "InstanceNumber",
    )
    same = {name: first[name].value for name in (*kept, "ImageOrientationPatient", "PixelSpacing")}
    dicom(archive / f"{first.InstanceNumber:04d}.dcm", VOLUME[2], sop_class=PET, **pet(**changes), **same)
    _, (item,) = indexed()
    assert item.suv == reason


def test_nifti_has_none_and_says_why(archive, indexed):
    archive.mkdir()
    nibabel.save(nibabel.Nifti1Image(VOLUME.astype(np.int16), np.eye(4)), archive / "pet.nii.gz")
    _, (item,) = indexed(images="pet")
    assert item.suv == NoSuv.NO_HEADER


def test_nifti_of_an_earlier_hilum_is_known_to_have_none_and_not_looked_at_again(archive, indexed):
    archive.mkdir()
    nibabel.save(nibabel.Nifti1Image(VOLUME.astype(np.int16), np.eye(4)), archive / "pet.nii.gz")
    workspace, _ = indexed(images="pet")
    forget_suv(workspace)
    assert not any(item.lacks_suv_answer for item in volumes(workspace))
    told = "\n".join(status_lines(site_status(workspace)))
    assert "no_header" in told
    assert "not_looked_for" not in told


def test_what_an_earlier_hilum_indexed_is_looked_at_once_and_stays_otherwise_as_it_was(
    write_series, archive, indexed
):
    write_series(archive / "pet", VOLUME, sop_class=PET, **pet())
    write_series(archive / "ct", VOLUME)
    workspace, before = indexed()
    forget_suv(workspace)
    assert [item.suv for item in volumes(workspace)] == [""]
    report = index_archive(archive, workspace, NullProgress())
    assert (volumes(workspace), report.decoded) == (before, len(VOLUME)), "the PET, and not the CT"
    assert index_archive(archive, workspace, NullProgress()).decoded == 0


def test_what_an_earlier_hilum_indexed_and_is_gone_says_so(write_series, archive, indexed):
    write_series(archive, VOLUME, sop_class=PET, **pet())
    workspace, _ = indexed()
    forget_suv(workspace)
    assert "not_looked_for" in "\n".join(status_lines(site_status(workspace)))


def test_the_status_tells_how_many_volumes_have_suv_and_why_others_have_none(write_series, archive, indexed):
    for n, attributes in enumerate(
        [pet(), pet(), pet(PatientWeight=None), pet(injection(RadionuclideTotalDose=350))]
    ):
        write_series(archive / str(n), VOLUME + n, sop_class=PET, **attributes)
    write_series(archive / "ct", VOLUME)
    workspace, _ = indexed()
    status = site_status(workspace)
    families = json.loads(json.dumps(status_json(status)))["families"]
    assert (families["pet"]["in_suv"], families["pet"]["no_suv"]) == (2, {"dose": 1, "weight": 1})
    assert "in_suv" not in families["ct"]
    lines = [line.strip() for line in status_lines(status)]
    assert '2 volumes can be taken in SUV (a study with data.intensity = "suv")' in lines
    assert f"1 volumes have no SUV: {NoSuv.WEIGHT.meaning} (weight)" in lines


def test_neither_weight_nor_dose_nor_a_time_is_in_the_catalogue(write_series, archive, indexed):
    write_series(
        archive,
        VOLUME,
        sop_class=PET,
        **pet(injection(RadionuclideTotalDose=351_234_567), PatientWeight=73.456),
    )
    workspace, (item,) = indexed()
    assert isinstance(item.suv, float)
    with sqlite3.connect(workspace.catalogue) as connection:
        everything = "\n".join(connection.iterdump())
    assert all(text not in everything for text in ("73.456", "351234567", "20240310", "TRACER"))
    assert str(item.suv) in everything


def test_a_description_tells_of_how_many_patients_it_is_known_and_nothing_of_the_factors(
    write_series, archive, indexed
):
    for n in range(12):
        write_series(
            archive / str(n), VOLUME + n, sop_class=PET, **pet(PatientID=f"P{n}", PatientWeight=50 + n)
        )
    _, items = indexed()
    assert len({item.suv for item in items}) == 12
    told = description(items, {}, 11)
    assert told["families"]["pet"]["tables"]["suv"] == [
        {"cell": "known", "patients": 11},
        {"cell": "unknown", "patients": None},
    ]
    assert not any("suv" in family["tables"] for name, family in told["families"].items() if name != "pet")
    others = [replace(item, quality=json.dumps({"suv": 2 * item.suv})) for item in items]
    assert description(others, {}, 11) == told
    without = [replace(item, quality=json.dumps({"suv": NoSuv.WEIGHT})) for item in items]
    assert description(without, {}, 11)["families"]["pet"]["tables"]["suv"][1]["patients"] == 11


def test_an_answer_given_before_is_given_again_until_it_is_known_of_enough_other_patients(
    write_series, archive, indexed
):
    for n in range(12):
        write_series(
            archive / str(n), VOLUME + n, sop_class=PET, **pet(PatientID=f"P{n}", PatientWeight=50 + n)
        )
    workspace, _ = indexed()
    forget_suv(workspace)
    first = describe_site(workspace)
    assert first.content["families"]["pet"]["tables"]["suv"][1]["patients"] == 11
    assert not describe_site(workspace).new
    indexed()
    second = describe_site(workspace)
    assert (second.new, second.left) == (True, first.left - 1)
    assert second.content["families"]["pet"]["tables"]["suv"][0]["patients"] == 11
