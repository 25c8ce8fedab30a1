"""A hospital that is asked."""

import shutil

import pytest

from asked_site import with_policy
from hilum.common.progress import NullProgress
from hilum.simulations.archives import find_sites, index_sites
from hilum.simulations.phantoms import write_phantoms


@pytest.fixture(scope="session")
def hospital(tmp_path_factory):
    """A hospital of forty patients, 28 of whom are trained on and 12 tested; its state is made once."""
    folder = tmp_path_factory.mktemp("hospital")
    write_phantoms(folder / "archives", sites=1, patients=40, size=64, seed=5)
    sites = find_sites(folder / "archives", folder / "home")
    index_sites(sites, NullProgress())
    return sites[0]


@pytest.fixture
def site(hospital):
    """The hospital as in a deployment, with a policy; its ledgers are new, and no run has begun."""
    shutil.rmtree(hospital.state.folder / "runs", ignore_errors=True)
    for name in ("runs.sqlite", "answers.sqlite"):
        for path in hospital.state.folder.glob(f"{name}*"):
            path.unlink()
    return with_policy(hospital)


@pytest.fixture
def study(make_study):
    return make_study(privacy={"min_patients": 11})
