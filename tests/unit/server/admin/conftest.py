"""The state folder of a federation."""

import pytest


@pytest.fixture
def home(tmp_path):
    return tmp_path / "hilum-home"
