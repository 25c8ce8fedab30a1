"""Real MR and CT volumes in patches at their own spacing: skipped where ../shared is absent."""

import json
import subprocess
import sys

import numpy as np
import pytest

from hilum.client.data.prepared import prepare
from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.intake.indexing.index import index_archive
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.loop import RoundPlace, train_round
from hilum.client.state.cache import ArrayCache
from hilum.client.state.workspace import Workspace
from hilum.common.config.data import DataSection
from hilum.common.methods import build_method
from hilum.common.progress import NullProgress

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def heads(shared_data, tmp_path_factory):
    """A state folder with the CTs of a head: 28 slices of 512 x 512, 5 mm apart."""
    workspace = Workspace(tmp_path_factory.mktemp("heads"))
    index_archive(shared_data / "data" / "dicom" / "ct_philips_head", workspace, NullProgress())
    return workspace


def test_a_ct_is_packed_at_a_millimetre_and_its_patches_show_the_head(heads):
    data = DataSection(modality="ct", dims=3, image_size=64)
    prepared = prepare(heads, data)
    [item], [one] = prepared.items, prepared.images.files
    assert one.shape == tuple(round(n * mm) for n, mm in zip(item.shape, item.spacing_mm, strict=True))
    raw = np.asarray(ArrayCache(heads.cache).get(item.content_sha256), np.float32)
    mean = ((raw + 1000) / 2000).clip(0, 1).mean()
    assert one.values().mean() / 65_535 == pytest.approx(mean, rel=0.03), "nothing is lost or made"
    rows = np.zeros(40, np.int64)
    blocks = prepared.images.blocks(rows, prepared.images.random_origins(rows, np.random.default_rng(0)))
    shown = (blocks > 0.05 * 65_535).mean((1, 2, 3, 4))
    assert shown.min() > 0.005, "no patch of air alone"
    assert shown.mean() > 1.1 * (one.values() > 0.05 * 65_535).mean()


def test_slices_of_a_ct_are_images(heads):
    prepared = prepare(heads, DataSection(modality="ct", cut="slices", image_size=96, window_hu=[-160, 240]))
    assert prepared.images.files[0].shape == (28, 120, 120)
    origins = prepared.images.covering_origins(0)
    assert 10 <= len(origins) <= 28
    assert prepared.images.seen(np.zeros(len(origins), np.int64), origins).shape == (
        len(origins),
        1,
        120,
        120,
    )


def test_training_on_a_ct_lowers_the_loss(heads, make_study):
    study = make_study(
        data={"modality": "ct", "dims": 3, "image_size": 32, "spacing_mm": 2.0, "per_volume": 16},
        training={"batch_size": 8, "local_epochs": 4, "base_learning_rate": 0.032},
        federation={"rounds": 2},
    )
    rows = np.zeros(1, np.int64)
    site = SiteData(
        "a", prepare(heads, study.data).images, (None,), Split(rows, rows[:0], rows[:0], rows), "x"
    )
    method = build_method(study)
    first, second = (
        train_round(
            method, site, study, RoundPlace("a", n, ""), make_fabric("cpu", "fp32", 1), NullProgress()
        ).loss
        for n in (1, 2)
    )
    assert second < first


def test_a_federation_pre_trains_on_patches_of_real_mr(shared_data, run_hilum, study_file, tmp_path):
    archives = tmp_path / "brains"
    wrap, source = shared_data / "tools" / "wrap_as_dicom.py", shared_data / "data" / "mr_hippocampus_a"
    subprocess.run([sys.executable, wrap, "mr3d", source, archives], check=True, capture_output=True)
    path = study_file(
        data={"modality": "mr", "dims": 3, "image_size": 32, "intensity": "zscore"},
        training={"batch_size": 16},
    )
    path.write_text(path.read_text().replace('[tasks.classification]\nlabel = "label"\n', ""))
    done = run_hilum("simulate", path, "--archives", archives, "--out", "R", "--json", timeout_s=800)
    assert done.returncode == 0, done.stderr
    assert "volumes at 1 x 1 x 1 mm" in done.stderr
    first, last = json.loads(done.stdout)["rounds"]
    for site, told in first["sites"].items():
        assert last["sites"][site]["loss"] < told["loss"]
    marked = [file for file in tmp_path.glob("R/**/*") if file.is_file() and b"ZZPHI" in file.read_bytes()]
    assert marked == []
