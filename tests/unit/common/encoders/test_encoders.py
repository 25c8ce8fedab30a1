import pytest
import torch
from torch import nn

from hilum.common.encoders import ENCODERS, build_encoder
from hilum.common.encoders.base import initialise
from hilum.common.encoders.transformer import sincos_positions
from hilum.common.encoders.vit import patchify, unpatchify

CHOICES = [("vit", {"patch_size": 8}), ("resnet", {})]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("name", "extra"), CHOICES)
def test_an_encoder_maps_images_to_features_of_its_width(make_study, name, extra, dims):
    study = make_study(
        encoder={"name": name, "size": "tiny", **extra},
        method={"name": "simclr"},
        data={"image_size": 32, "dims": dims, "modality": "ct"},
    )
    encoder = build_encoder(study)
    images = torch.rand(2, 1, *[32] * dims)
    features, maps = encoder(images), encoder.feature_map(images)
    assert features.shape == (2, encoder.width)
    assert maps.shape[:2] == (2, encoder.width)
    assert maps.ndim == 2 + dims
    assert torch.allclose(features, maps.flatten(2).mean(2))


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
@pytest.mark.parametrize(("name", "extra"), CHOICES)
def test_every_size_is_free_of_what_dp_sgd_cannot_serve(make_study, name, extra, size):
    opacus = pytest.importorskip("opacus")
    study = make_study(
        encoder={"name": name, "size": size, **extra}, method={"name": "simclr"}, data={"image_size": 32}
    )
    encoder = build_encoder(study)
    assert opacus.validators.ModuleValidator.validate(encoder, strict=False) == []
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in encoder.modules())
    assert not any(getattr(module, "inplace", False) for module in encoder.modules())
    assert set(encoder.state_dict()) == {key for key, _ in encoder.named_parameters()}


def test_the_large_stem_pools(make_study):
    study = make_study(
        encoder={"name": "resnet", "size": "tiny"}, method={"name": "simclr"}, data={"image_size": 128}
    )
    assert build_encoder(study).feature_map(torch.rand(1, 1, 128, 128)).shape[2:] == (4, 4)


def test_first_values_depend_on_the_generator_alone(make_study):
    made = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        encoder = build_encoder(make_study())
        initialise(encoder, torch.Generator().manual_seed(3))
        made.append(encoder.state_dict())
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])


def test_a_layer_without_a_rule_is_refused():
    with pytest.raises(TypeError, match="no rule"):
        initialise(nn.Sequential(nn.Bilinear(2, 2, 2)), torch.Generator())


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (2, 1, 4, 8, 12)])
def test_patches_go_back_to_where_they_came_from(shape):
    images = torch.rand(shape)
    assert torch.equal(unpatchify(patchify(images, 4), 4, shape[2:]), images)


def test_patches_are_cut_in_c_order():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert patchify(image, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize("grid", [(3, 4), (2, 3, 4)])
def test_positions_tell_all_cells_apart(grid):
    positions = sincos_positions(grid, 96)[0]
    distance = torch.cdist(positions, positions) + torch.eye(len(positions)) * 9
    assert positions.shape == (torch.tensor(grid).prod(), 96)
    assert distance.min() > 0.1


def test_the_registry_lists_what_the_config_accepts(make_study):
    assert set(ENCODERS) == {name for name, _ in CHOICES}
