"""Encoders that Hilum made: the same, another grid, another table of positions, a volume."""

import json

import pytest
import torch

from foreign_weights import written
from hilum.common.encoders.warm_start import inspect_file, warm_start
from hilum.common.errors import ConfigError
from hilum.common.export import Provenance, write_encoder
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest, get_federated

IMAGES = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(3))


def trained(encoder):
    """Weights unlike any encoder's first ones."""
    rng = torch.Generator().manual_seed(9)
    state = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=rng)
        for name, tensor in encoder.state_dict().items()
    }
    encoder.load_state_dict(state)
    return state


def features(encoder, images=IMAGES):
    with torch.no_grad():
        return encoder(images)


@pytest.mark.parametrize(
    "more", [{"patch_size": 8}, {"patch_size": 8, "positions": "learned"}, {"name": "resnet"}]
)
def test_a_like_encoder_is_taken_as_it_is(encoder_of, start, more):
    made, encoder = encoder_of(**more), encoder_of(**more)
    report = start(encoder, trained(made))
    assert report.kind == "hilum"
    assert {one.outcome for one in report.keys} == {"matched"}
    assert torch.equal(features(encoder), features(made))


def test_computed_positions_begin_a_table(encoder_of, start):
    made, encoder = encoder_of(patch_size=8), encoder_of(patch_size=8, positions="learned")
    report = start(encoder, trained(made))
    torch.testing.assert_close(features(encoder), features(made), atol=1e-5, rtol=1e-5)
    assert report.first_values == ()


def test_another_size_of_images_brings_another_grid(encoder_of, start):
    made = encoder_of(patch_size=8, positions="learned", image_size=32)
    encoder = encoder_of(patch_size=8, positions="learned")
    start(encoder, trained(made))
    torch.testing.assert_close(
        features(encoder), features(made), atol=1e-5, rtol=1e-5
    )  # it resizes its own alike


def test_a_plane_becomes_a_volume(encoder_of, start):
    made = encoder_of(patch_size=16, positions="learned")
    encoder = encoder_of(patch_size=16, positions="learned", dims=3)
    start(encoder, trained(made))
    volume = IMAGES[:, :, None].expand(-1, -1, 64, -1, -1)
    torch.testing.assert_close(features(encoder, volume), features(made), atol=1e-5, rtol=1e-5)
    report = start(encoder_of("resnet", dims=3, image_size=32), trained(encoder_of("resnet")))
    assert {one.outcome for one in report.keys} == {"matched", "adapted"}


def test_the_manifest_beside_a_file_tells_heads_and_patches(make_study, tmp_path, encoder_of):
    study = make_study(encoder={"patch_size": 4})
    method = build_method(study)
    write_encoder(tmp_path, study, federated_manifest(method), get_federated(method), Provenance(1, 1))
    file, manifest = tmp_path / "model.safetensors", tmp_path / "manifest.json"
    assert inspect_file(file).facts["heads"] == 3
    warm_start(encoder_of(patch_size=4, image_size=16), file, None)
    facts = json.loads(manifest.read_text())
    facts["architecture"]["heads"] = 6
    manifest.write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match="heads 6 in the file, 3 in the study"):
        warm_start(encoder_of(patch_size=4, image_size=16), file, None)
    with pytest.raises(
        ConfigError, match=r"patch size 4 in the file, 8 in the study.*encoder\.patch_size = 4"
    ):
        warm_start(encoder_of(patch_size=8), file, None)


def test_an_encoder_of_volumes_is_none_of_images(encoder_of, tmp_path):
    written(encoder_of("resnet", dims=3, image_size=32).state_dict(), tmp_path / "volumes.safetensors")
    with pytest.raises(ConfigError, match="dimensions 3 in the file, 2 in the study"):
        warm_start(encoder_of("resnet"), tmp_path / "volumes.safetensors", None)
