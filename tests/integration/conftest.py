"""What the tests of the ways in share."""

import numpy as np
import pytest

from dicomweb_service import Service


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
