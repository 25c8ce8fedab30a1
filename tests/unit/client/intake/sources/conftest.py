"""An archive in which odd files lie."""

import pytest

from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


@pytest.fixture
def index(archive, tmp_path):
    def run(**options):
        return index_archive(archive, Workspace(tmp_path / "state"), NullProgress(), **options).counts

    return run
