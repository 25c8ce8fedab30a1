"""Two hospitals, and a study for both."""

import shutil

import pytest

from hilum.common.config import load_study


@pytest.fixture
def two(archives, tmp_path):
    """Two hospitals without anything in common, that a test may change."""
    for name in ("site-0", "site-1"):
        shutil.copytree(archives / name, tmp_path / "two" / name)
    return tmp_path / "two"


@pytest.fixture
def study(study_file):
    return load_study(study_file(federation={"sites": 2, "rounds": 2}))
