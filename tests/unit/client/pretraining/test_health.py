import numpy as np
import pytest
import torch

from health import COLLAPSED, DRIFTING, HEALTHY
from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.pretraining import health
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.health import (
    effective_rank,
    encoder_health,
    one_a_patient,
    start_health,
)
from hilum.client.pretraining.site import site_round
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from hilum.common.training_health import HEALTH, HEALTH_IMAGES, bounded, health_warnings

FABRIC = make_fabric("cpu", "fp32", 1)


@pytest.fixture
def data():
    images = np.random.default_rng(0).integers(0, 65535, (40, 1, 20, 20)).astype(np.uint16)
    rows, none = np.arange(40), np.zeros(0, np.int64)
    return SiteData("site-0", images, (None,) * 40, Split(rows, none, none, rows // 2), "content")


def test_the_effective_rank_by_hand():
    assert effective_rank(torch.ones(6, 4)) == 1
    line = torch.arange(5.0)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert effective_rank(line) == pytest.approx(1, abs=1e-6)
    cross = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert effective_rank(cross) == pytest.approx(2)
    assert effective_rank(7 + 100 * cross) == pytest.approx(2), "neither place nor size matters"
    values = np.linalg.svd(cross.numpy() * [3.0, 1.0], compute_uv=False)
    shares = values / values.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(cross * torch.tensor([3.0, 1.0])) == pytest.approx(expected)
    assert np.isnan(effective_rank(torch.tensor([[float("nan")], [1.0]])))


def test_as_many_patients_as_there_are_stand_behind_the_numbers(data):
    rows = one_a_patient(data, 3, HEALTH_IMAGES)
    assert len(rows) == HEALTH_IMAGES
    assert len(set(rows.tolist())) == HEALTH_IMAGES
    assert set(data.split.group[rows].tolist()) == set(range(20))


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_an_encoders_health_is_of_the_encoder_alone_and_within_bounds(make_study, data, name):
    study = make_study(encoder={"name": name, "size": "tiny"}, method={"name": "simclr"})
    encoder = build_method(study).encoder
    told = encoder_health(encoder, data, study, FABRIC)
    assert told == encoder_health(encoder, data, study, FABRIC)
    assert all(bounded(number, value) for number, value in told.items())
    assert 0 < told["feature_deviation"] <= 1
    assert told["effective_rank"] > 3
    with torch.no_grad():
        images = torch.rand(2, 1, 16, 16)
        residuals = encoder.residuals(images)
        if name == "vit":
            assert residuals.shape == (2, 4, encoder.width)
        else:
            assert torch.equal(residuals, encoder.feature_maps(images)[-1])
        assert torch.allclose(encoder.pooled(residuals), encoder(images), atol=1e-6)


def test_no_fewer_patients_stand_behind_the_numbers_than_the_threshold_says(make_study, monkeypatch):
    images = np.random.default_rng(0).integers(0, 65535, (60, 1, 20, 20)).astype(np.uint16)
    rows, none = np.arange(60), np.zeros(0, np.int64)
    many = SiteData("site-0", images, (None,) * 60, Split(rows, none, none, rows), "content")
    seen = []
    monkeypatch.setattr(health, "drawn", lambda images, rows, _rng: seen.append(rows) or images[rows])
    encoder = build_method(make_study()).encoder
    for threshold, count in ((11, 32), (45, 45)):
        study = make_study(privacy={"min_patients": threshold}, training={"batch_size": 7})
        told = encoder_health(encoder, many, study, FABRIC)
        assert len(seen.pop()) == count
        assert all(bounded(number, value) for number, value in told.items())


def test_the_numbers_do_not_depend_on_how_many_images_fit_at_once(make_study, data):
    encoder = build_method(make_study()).encoder
    small, whole = (
        encoder_health(encoder, data, make_study(training={"batch_size": size}), FABRIC) for size in (5, 64)
    )
    # A crop's random numbers are those of its batch, so the alignment is of other crops.
    assert {**small, "alignment": 0} == pytest.approx({**whole, "alignment": 0}, rel=1e-4)


def test_alignment_and_uniformity_are_the_papers(make_study, data, monkeypatch):
    study = make_study(training={"batch_size": HEALTH_IMAGES})
    features = torch.randn(HEALTH_IMAGES, 5)
    crops = torch.randn(HEALTH_IMAGES, 5)
    encoder = build_method(study).encoder
    monkeypatch.setattr(type(encoder), "pooled", lambda *_: features)
    monkeypatch.setattr(type(encoder), "forward", lambda *_: crops)
    told = encoder_health(encoder, data, study, FABRIC)
    x, y = (v.numpy() / np.linalg.norm(v.numpy(), axis=1, keepdims=True) for v in (features, crops))
    pairs = [(i, j) for i in range(len(x)) for j in range(i)]
    uniformity = np.log(np.mean([np.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i, j in pairs]))
    assert told["uniformity"] == pytest.approx(uniformity, abs=1e-5)
    assert told["alignment"] == pytest.approx(np.mean(np.sum((x - y) ** 2, axis=1)), abs=1e-5)
    assert told["feature_deviation"] == pytest.approx(np.sqrt(5) * x.std(0).mean(), abs=1e-5)


def test_a_round_tells_every_number_and_warns_of_what_is_the_matter(make_study, data, tmp_path):
    study = make_study(training={"batch_size": 20, "local_epochs": 1})
    base = get_federated(build_method(study))
    sent = site_round(data, study, base, 1, tmp_path, device="cpu")
    assert sent.health.keys() == HEALTH.keys()
    assert all(bounded(name, value) for name, value in sent.health.items())
    assert sent.health["skipped_share"] == 0
    assert sent.health["gradient_norm"] > 0
    assert not health_warnings(sent.health)
    # Weights that give every image one and the same feature are a collapse, whenever they come.
    for folder, number in ((tmp_path, 2), (tmp_path / "came later", 2)):
        collapsed = site_round(data, study, base * np.float32(0), number, folder, device="cpu")
        assert [warning.kind for warning in health_warnings(collapsed.health)] == ["collapse"]
    started = site_round(data, study, 3 * base, 1, tmp_path / "other start", device="cpu").health
    assert started["start_norm"] > 2 * sent.health["start_norm"], "a study may start from a file"


def test_the_encoder_that_a_run_starts_from_is_measured_once(make_study, data, tmp_path):
    study = make_study()
    encoder = build_method(study).encoder
    first = start_health(encoder, data, study, FABRIC, tmp_path)
    with torch.no_grad():
        encoder.patch_embed.weight.mul_(30)
    assert start_health(encoder, data, study, FABRIC, tmp_path) == first
    assert start_health(encoder, data, study, FABRIC, tmp_path / "other") != first


@pytest.mark.parametrize(
    ("numbers", "kinds"),
    [
        (HEALTHY, []),
        (COLLAPSED, ["collapse"]),
        (DRIFTING, ["drift"]),
        ({**HEALTHY, "effective_rank": 2.4}, ["collapse"]),
        ({**HEALTHY, "effective_rank": 2.6}, []),
        ({**HEALTHY, "residual_norm": 29.0}, []),
        ({**HEALTHY, "residual_norm": 31.0, "skipped_share": 0.06}, ["drift", "skipped"]),
        ({"loss": 1.0}, []),
    ],
)
def test_warnings_are_beside_the_start(numbers, kinds):
    found = health_warnings(numbers)
    assert [warning.kind for warning in found] == kinds
    assert all("base_learning_rate" in warning.words for warning in found)
