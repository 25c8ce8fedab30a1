"""What the tests of the ways in share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from dicomweb_service import Service
from receiver import Running
from studies import study_table


@pytest.fixture
def archive(dicom, write_series, tmp_path):
    """A CT series of eight slices and five radiographs of two studies."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "archive"
    write_series(folder / "ct", rng.integers(-900, 900, (8, 16, 16)).astype(np.int16), StudyDate="20240105")
    for n in range(5):
        dicom(
            folder / f"{n}.dcm",
            rng.integers(0, 999, (16, 16)).astype(np.uint16),
            StudyInstanceUID=f"1.2.3.{n % 2}",
            StudyDate=f"2023010{1 + n % 2}",
        )
    return folder


@pytest.fixture
def serve(archive):
    started = []

    def start(**options):
        started.append(Service(archive, **options))
        return started[-1]

    yield start
    for service in started:
        service.__exit__()


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory):
    """Three of them, large enough for a site's threshold of patients."""
    from hilum.simulations.phantoms import write_phantoms

    folder = tmp_path_factory.mktemp("hospitals") / "archives"
    write_phantoms(folder, sites=3, patients=60, size=64, seed=5)
    return folder


@pytest.fixture(scope="session")
def deployed_study(tmp_path_factory):
    table = study_table(
        training={"select": "knn", "base_learning_rate": 0.05},
        federation={"rounds": 3},
        privacy={"min_patients": 11},
        evaluation={"arms": ["federated", "raw"]},
    )
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text(tomli_w.dumps(table))
    return path


@pytest.fixture(scope="session")
def expected(hospitals, deployed_study, tmp_path_factory):
    """The encoder of the same study, simulated."""
    folder = tmp_path_factory.mktemp("simulated")
    words = ("simulate", deployed_study, "--archives", hospitals, "--out", folder / "run")
    command = [str(Path(sys.executable).parent / "hilum"), *map(str, words)]
    environment = {**os.environ, "HILUM_HOME": str(folder / "home")}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return json.loads((folder / "run" / "encoder" / "manifest.json").read_text())["encoder_sha256"]


@pytest.fixture
def receiver(tmp_path):
    started = []

    def start(*words, allow="SENDER@127.0.0.1"):
        started.append(Running(tmp_path / "hilum-home", "--allow", allow, *words))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.fixture
def series(write_series, tmp_path):
    volume = np.random.default_rng(1).integers(-900, 900, (8, 16, 16)).astype(np.int16)
    write_series(tmp_path / "archive", volume)
    return sorted((tmp_path / "archive").iterdir())
