"""Sites that the tests of annotations share."""

import shutil
from copy import deepcopy

import numpy as np
import pytest

from annotated_site import OBLIQUE, Site, make_site
from hilum.client.state.workspace import Workspace


@pytest.fixture(scope="session")
def made() -> dict[str, Site]:
    """Sites that were made already: each test works on a copy."""
    return {}


@pytest.fixture(params=["axial", "oblique"])
def site(request, tmp_path, tmp_path_factory, dicom, made):
    if request.param not in made:
        rotation = np.eye(3) if request.param == "axial" else OBLIQUE
        made[request.param] = make_site(tmp_path_factory.mktemp(request.param), dicom, rotation)
    first = made[request.param]
    shutil.copytree(first.folder.parent, tmp_path, dirs_exist_ok=True)
    workspace = Workspace(tmp_path / "state")
    return Site(tmp_path / "annotations", workspace, deepcopy(first.datasets), first.affine)
