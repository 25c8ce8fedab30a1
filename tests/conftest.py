"""Small real files and small studies that the tests share."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from commands_table import commands_of_hilum
from dicom_files import CT, write_dicom
from hilum.common.config import StudyConfig, parse_study
from hilum.common.lockdown import close_outbound
from hilum.common.signing import SignedStudy, StudyOrder, sign_study, verify_study
from places import SHARED
from studies import study_table

close_outbound()

LONG_FILES = {
    "test_attacks",
    "test_between_sites",
    "test_alone",
    "test_deployment",
    "test_export_page",
    "test_extend",
    "test_markers",
    "test_real_archives",
    "test_simulation",
    "test_surroundings",
}

# Whoever starts the tests in the background has them ignore these, and what they start would too.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that both cores end together; a file's tests stay in their order."""
    items.sort(key=lambda item: item.path.stem not in LONG_FILES)


@pytest.fixture
def make_study() -> Callable[..., StudyConfig]:
    return lambda **changes: parse_study(study_table(**changes))


@pytest.fixture
def make_order() -> Callable[..., tuple[SignedStudy, StudyOrder]]:
    """Sign a study with a key of the test's own: as it travels, and as it reads."""
    key = Ed25519PrivateKey.generate()

    def make(
        study: StudyConfig, *, run: str = "run", sites: Sequence[str] | None = None
    ) -> tuple[SignedStudy, StudyOrder]:
        names = sites or [f"site-{n}" for n in range(study.federation.sites)]
        signed = sign_study(study, run=run, sites=names, days=1, now=time.time(), key=key)
        return signed, verify_study(signed, key.public_key(), now=time.time(), site=None)

    return make


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "study.toml", **changes: dict[str, Any]) -> Path:
        import tomli_w

        path = tmp_path / name
        path.write_text(tomli_w.dumps(study_table(**changes)))
        return path

    return write


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantom hospitals of ten patients."""
    from hilum.simulations.phantoms import write_phantoms

    folder = tmp_path_factory.mktemp("phantoms") / "archives"
    write_phantoms(folder, sites=3, patients=10, size=64, seed=5)
    return folder


@pytest.fixture
def run_hilum(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command line in a process of its own, with a state folder of its own."""

    def run(
        *words: object, before: Sequence[str] = (), timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        hilum = Path(sys.executable).parent / "hilum"
        environment = {
            **os.environ,
            "HILUM_HOME": str(tmp_path / "hilum-home"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        return subprocess.run(
            [*before, str(hilum), *map(str, words)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            cwd=tmp_path,
            check=False,
        )

    return run


@pytest.fixture
def dicom() -> Callable[..., Dataset]:
    return write_dicom


@pytest.fixture(scope="session")
def write_series() -> Callable[..., list[Dataset]]:
    """An axial CT or MR series with known voxels, one file a slice, in shuffled names."""

    def write(
        folder: Path,
        volume: np.ndarray,
        *,
        spacing_mm=(2.0, 0.7, 0.8),
        sop_class: str = CT,
        **attributes: Any,
    ) -> list[Dataset]:
        common = {
            "SeriesInstanceUID": generate_uid(),
            "StudyInstanceUID": generate_uid(),
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": list(spacing_mm[1:]),
            **attributes,
        }
        names = np.random.default_rng(1).permutation(len(volume))
        return [
            write_dicom(
                folder / f"{names[k]:04d}.dcm",
                volume[k],
                sop_class=sop_class,
                **{
                    "ImagePositionPatient": [-10, -20, 5 + k * spacing_mm[0]],
                    "InstanceNumber": int(names[k]),
                    **common,
                },
            )
            for k in range(len(volume))
        ]

    return write


@pytest.fixture(scope="session")
def commands() -> dict[str, click.Command]:
    """Every command of the command line by its full name."""
    return commands_of_hilum()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.exists():
        pytest.skip("../shared is absent: real images are needed")
    return SHARED
