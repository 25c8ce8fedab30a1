"""Real images of other families than radiographs, CT and MR: taken, prepared and trained on."""

import shutil

import numpy as np
import pytest

from hilum.client.data.prepared import prepare
from hilum.client.data.site_data import open_site
from hilum.client.pretraining.site import pretrain_alone
from hilum.client.state.workspace import Workspace
from hilum.common.config.data import DataSection
from hilum.common.preparation.intensity import FULL_SCALE
from hilum.common.progress import NullProgress
from hilum.simulations.archives import find_sites, index_sites

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path, shared_data):
    """Copy pictures to a site and index them."""

    def make(pattern, family):
        folder = tmp_path / "sites" / "s"
        folder.mkdir(parents=True)
        for path in (shared_data / "data").glob(pattern):
            shutil.copy(path, folder)
        sites = find_sites(tmp_path / "sites", tmp_path / "home")
        report = index_sites(sites, NullProgress(), [family])["s"]
        return sites[0], report.counts

    return make


def test_fundus_photographs_keep_their_colours_and_lose_their_borders(site):
    made, counts = site("retina_vessels/CHASEDB1/*.jpg", "photograph")
    assert (counts.files, counts.instances) == (28, 28)
    images = prepare(Workspace(made.state.folder), DataSection(modality="fundus", image_size=64)).images
    assert images.shape == (28, 3, 80, 80)
    red, green, blue = (np.asarray(images) / FULL_SCALE).mean((0, 2, 3))
    assert red > green > blue
    shown = np.asarray(images).max(1) > 0.05 * FULL_SCALE
    for axis in (1, 2):  # the field touches all four edges, or two of them where it is not quite round
        lines = shown.any(axis)
        assert (lines[:, 3:-3]).all()


def test_stills_of_ultrasound_are_taken_grey_or_not_and_what_they_show_falls_into_place(site):
    made, counts = site("us_lung_pocus/pocus_images/*/*", "ultrasound")
    assert (counts.files, counts.instances) == (26, 26)
    images = np.asarray(
        prepare(Workspace(made.state.folder), DataSection(modality="ultrasound", image_size=64)).images
    )
    assert images.shape == (26, 1, 80, 80)
    # The near field is bright and in the middle: nothing was turned over.
    near = images[:, 0, :20, 25:55].mean((1, 2))
    far = images[:, 0, -12:].mean((1, 2))
    assert (near > far).mean() > 0.8


class Losses:
    """Keeps what the loop tells."""

    def __init__(self):
        self.told = []

    def advance(self, done, note=""):
        self.told.append(float(note.split()[1].rstrip(",")))


@pytest.mark.parametrize(
    ("pattern", "family", "modality"),
    [
        ("retina_vessels/CHASEDB1/*.jpg", "photograph", "fundus"),
        ("us_lung_pocus/pocus_images/*/*", "ultrasound", "ultrasound"),
    ],
)
def test_the_loss_of_a_masked_autoencoder_falls(pattern, family, modality, site, make_study, tmp_path):
    made, _counts = site(pattern, family)
    study = make_study(
        data={"modality": modality, "image_size": 32},
        training={"batch_size": 8, "local_epochs": 10},
        federation={"rounds": 1, "sites": 1},
    )
    seen = Losses()
    pretrain_alone(open_site(made, study), study, tmp_path / "run", device="cpu", steps=seen)
    assert np.mean(seen.told[-4:]) < 0.8 * np.mean(seen.told[:2])
