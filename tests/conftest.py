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
import pydicom
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from commands_table import commands_of_hilum
from hilum.common.config import StudyConfig, parse_study
from hilum.common.lockdown import close_outbound
from hilum.common.signing import SignedStudy, StudyOrder, sign_study, verify_study

close_outbound()

# Whoever starts the tests in the background has them ignore these, and what they start would too.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

SHARED = Path(__file__).parents[2] / "shared"
CR, CT, MR = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


def study_table(**changes: dict[str, Any]) -> dict[str, Any]:
    """A study that trains in seconds; `changes` replace or extend whole sections."""
    table: dict[str, Any] = {
        "study": {"name": "tiny", "seed": 11},
        "data": {"modality": "radiograph", "image_size": 16},
        "encoder": {"name": "vit", "size": "tiny", "patch_size": 8},
        "method": {"name": "mae", "decoder_width": 32, "decoder_depth": 1},
        "training": {"batch_size": 8, "local_epochs": 1},
        "federation": {"rounds": 2, "sites": 3, "deadline_s": 60.0},
        "privacy": {"min_patients": 1},  # the phantoms here are few
        "tasks": {"classification": {"label": "label"}},
        "evaluation": {
            "protocols": ["linear"],
            "arms": ["federated", "local", "random", "raw"],
            "label_fractions": [1.0],
            "bootstrap_draws": 100,
            "finetune_epochs": 1,
            "finetune_min_steps": 1,
        },
    }
    for section, values in changes.items():
        same_kind = "name" not in values or values["name"] == table.get(section, {}).get("name")
        table[section] = {**table.get(section, {}), **values} if same_kind else dict(values)
    return table


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


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    *,
    sop_class: str = CR,
    syntax: str = ExplicitVRLittleEndian,
    **attributes: Any,
) -> Dataset:
    """A minimal image with markers in its identifying attributes; `attributes` replace the defaults, None removes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    bits = 8 * pixels.dtype.itemsize
    values: dict[str, Any] = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "PatientID": "ZZPHI-ID",
        "PatientName": "ZZPHI^NAME",
        "InstitutionName": "ZZPHI HOSPITAL",
        "Modality": {CR: "CR", CT: "CT", MR: "MR"}.get(sop_class, "OT"),
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        **attributes,
    }
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return dataset


@pytest.fixture
def dicom() -> Callable[..., Dataset]:
    return write_dicom


@pytest.fixture
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
