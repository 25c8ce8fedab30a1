"""Federations on volumes: patches and slices, the same bits however they ran, and what is refused in one line."""

import csv
import json

import numpy as np
import pytest

from hilum.client.data import volume_packing
from hilum.client.data.prepared import holding_of
from hilum.client.state.workspace import Workspace
from hilum.common.config import load_study
from hilum.common.errors import DataError
from hilum.common.pretrained import load_encoder
from hilum.common.progress import NullProgress
from hilum.simulations.archives import find_sites, index_sites, open_sites
from hilum.simulations.run import simulate
from volume_phantoms import trunk

PATCHES = {"modality": "ct", "dims": 3, "image_size": 16, "spacing_mm": 3.0, "per_volume": 2}
SLICES = {"modality": "ct", "dims": 2, "image_size": 16, "cut": "slices"}
SHAPE, SPACING_MM = (12, 24, 32), (4.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def archives(tmp_path_factory, write_series):
    """Two sites of eight volumes; in half of them the lungs are full."""
    folder = tmp_path_factory.mktemp("volumes")
    for site in range(2):
        rows = []
        for number in range(8):
            values = trunk(SHAPE, "ct", 10 * site + number)
            if number % 2:
                values = np.where((values > -900) & (values < -500), values + 700, values)
            name = f"{site}{number}"
            [first, *_] = write_series(
                folder / f"site-{site}" / "dicom" / name,
                (values + 1024).astype(np.uint16),
                spacing_mm=SPACING_MM,
                PatientID=f"P{name}",
                RescaleSlope=1,
                RescaleIntercept=-1024,
            )
            rows.append((first.SeriesInstanceUID, f"P{name}", ["clear", "full"][number % 2]))
        with (folder / f"site-{site}" / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("series_instance_uid", "patient", "label"), *rows])
    return folder


@pytest.fixture
def study(study_file):
    def make(data=PATCHES, **changes):
        return load_study(
            study_file(data=data, federation={"sites": 2, "rounds": 2}, training={"batch_size": 6}, **changes)
        )

    return make


def encoder_sha256(run):
    return json.loads((run / "encoder" / "manifest.json").read_text())["encoder_sha256"]


@pytest.mark.parametrize("data", [PATCHES, SLICES], ids=["patches", "slices"])
def test_a_study_of_volumes_runs_from_dicom_to_a_report(archives, study, tmp_path, data):
    what = study(
        data,
        evaluation={
            "protocols": ["knn", "linear", "finetune"],
            "arms": ["federated", "local", "centralised", "scratch", "random", "raw"],
        },
    )
    results = simulate(what, archives, tmp_path / "run", tmp_path / "home")
    rows = results["evaluation"]
    assert {row["arm"] for row in rows} == {"federated", "local", "centralised", "scratch", "random", "raw"}
    assert {row["site"] for row in rows} == {"site-0", "site-1"}
    assert [one["sites"]["site-0"]["examples"] for one in results["rounds"]] == [6, 6], "volumes, not patches"
    assert (tmp_path / "run" / "preview" / "site-0.png").exists()
    assert load_encoder(tmp_path / "run").data == what.data


def test_the_same_seed_gives_the_same_encoder_in_threads_and_on_ray(archives, study, tmp_path):
    pytest.importorskip("ray")
    for name, backend in (("a", "process"), ("b", "ray")):
        what = study(tasks={}, evaluation={"arms": ["federated"]})
        simulate(what, archives, tmp_path / name, tmp_path / "home", backend=backend)
    assert encoder_sha256(tmp_path / "a") == encoder_sha256(tmp_path / "b")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({**PATCHES, "image_size": 64}, "site-0: a patch of 64 x 64 x 64 voxels at 3 x 3 x 3 mm is larger than every volume"),
        ({**PATCHES, "spacing_mm": 0.05}, "GB of the state folder's disk are free; write a larger data.spacing_mm"),
    ],
    ids=["patch", "disk"],
)  # fmt: skip
def test_what_can_not_be_is_refused_in_one_line_before_anything_is_written(
    archives, study, tmp_path, data, problem, monkeypatch
):
    monkeypatch.setattr(volume_packing, "free_disk_bytes", lambda folder: 10**9)
    with pytest.raises(DataError) as refused:
        simulate(study(data), archives, tmp_path / "run", tmp_path / "home")
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_wrong_column_of_labels_is_refused_before_any_volume_is_packed(archives, study, tmp_path):
    asked = study(PATCHES, tasks={"classification": {"label": "grade"}})
    with pytest.raises(DataError, match="no column `grade`"):
        simulate(asked, archives, tmp_path / "run", tmp_path / "home")
    assert not list((tmp_path / "home").rglob("prepared/*"))


def test_sites_that_fit_on_the_disk_one_by_one_but_not_together_are_refused_before_any_is_packed(
    archives, study, tmp_path, monkeypatch
):
    home = tmp_path / "home"
    sites = find_sites(archives, home)
    index_sites(sites, NullProgress())
    needed = [holding_of(Workspace(one.state.folder), study(PATCHES).data).lacking_bytes for one in sites]
    monkeypatch.setattr(volume_packing, "free_disk_bytes", lambda folder: sum(needed) - 1)
    with pytest.raises(
        DataError, match=r"images of all sites take .* write a larger data.spacing_mm, or make room"
    ):
        open_sites(sites, study(PATCHES))
    assert not list(home.rglob("prepared/*"))
