import pytest
import torch
from torch import nn

from hilum.common.config.encoders import EncoderConfig
from hilum.common.config.modalities import MODALITIES
from hilum.common.config.named import names_of
from hilum.common.encoders import ENCODERS, build_encoder
from hilum.common.encoders.base import AS_IT_IS, initialise
from hilum.common.encoders.transformer import sincos_positions
from hilum.common.encoders.vit import patchify, unpatchify

CHOICES = [
    ("vit", {"patch_size": 8}),
    ("vit", {"patch_size": 8, "positions": "learned"}),
    *((name, {}) for name in ENCODERS if name != "vit"),
]


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
    features, maps = encoder(images), encoder.feature_maps(images)[-1]
    assert features.shape == (2, encoder.width)
    assert maps.shape[:2] == (2, encoder.width)
    assert maps.ndim == 2 + dims
    assert torch.allclose(features, maps.flatten(2).mean(2))


@pytest.mark.parametrize(("name", "extra"), CHOICES)
def test_an_encoder_of_boxes_has_a_map_of_their_proportions(make_study, name, extra):
    study = make_study(
        encoder={"name": name, "size": "tiny", **extra},
        method={"name": "simclr"},
        data={"image_size": [16, 32, 48], "dims": 3, "modality": "ct"},
    )
    encoder = build_encoder(study)
    maps = encoder.feature_maps(torch.rand(2, 1, 16, 32, 48))[-1]
    assert tuple(maps.shape[2:]) == tuple(edge // encoder.strides[-1] for edge in (16, 32, 48))
    assert encoder.architecture()["image_size"] == [16, 32, 48]


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
    assert [one.shape[2] for one in build_encoder(study).feature_maps(torch.rand(1, 1, 128, 128))] == [
        32,
        16,
        8,
        4,
    ]


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
    assert set(ENCODERS) == set(names_of(EncoderConfig))


def encoder_of(make_study, name, extra, *, dims=2, image_size=32, size="tiny"):
    study = make_study(
        encoder={"name": name, "size": size, **extra},
        method={"name": "simclr"},
        data={"image_size": image_size, "dims": dims, "modality": "ct"},
    )
    encoder = build_encoder(study)
    initialise(encoder, torch.Generator().manual_seed(1))
    return encoder.eval()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("name", "extra"), CHOICES)
def test_feature_maps_go_from_fine_to_coarse_by_the_strides_that_are_told(make_study, name, extra, dims):
    encoder = encoder_of(make_study, name, extra, dims=dims)
    maps = encoder.feature_maps(torch.rand(2, 1, *[32] * dims))
    assert [one.shape[1] for one in maps] == list(encoder.widths)
    assert [32 // one.shape[2] for one in maps] == list(encoder.strides) == sorted(encoder.strides)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("size", ["tiny", "base"])
@pytest.mark.parametrize(("name", "extra"), CHOICES)
def test_what_lies_under_a_mask_reaches_no_feature(make_study, name, extra, size, dims):
    edge = 32
    encoder = encoder_of(make_study, name, extra, dims=dims, size=size, image_size=edge)
    images = torch.rand(2, 1, *[edge] * dims)
    grid = [edge // encoder.strides[-1]] * dims
    mask = torch.zeros(2, *grid)
    mask[0].view(-1)[0] = mask[1].view(-1)[-1] = 1  # another place in each image
    hidden = torch.nn.functional.interpolate(mask[:, None], images.shape[2:])
    changed = torch.where(hidden == 1, torch.rand_like(images), images)
    before, after = encoder.feature_maps(images, mask), encoder.feature_maps(changed, mask)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)
        under = torch.nn.functional.interpolate(mask[:, None], one.shape[2:]).expand_as(one) == 1
        assert one[under].abs().max() == 0
        assert one[~under].abs().max() > 0
    assert not torch.allclose(before[-1], encoder.feature_maps(images)[-1])


@pytest.mark.parametrize(("name", "extra"), CHOICES)
def test_a_mask_that_removes_nothing_changes_nothing(make_study, name, extra):
    encoder = encoder_of(make_study, name, extra)
    images = torch.rand(2, 1, 32, 32)
    nothing = torch.zeros(2, *[32 // encoder.strides[-1]] * 2)
    for one, other in zip(encoder.feature_maps(images), encoder.feature_maps(images, nothing), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "extra"), CHOICES)
def test_an_encoder_takes_images_of_another_size(make_study, name, extra):
    encoder = encoder_of(make_study, name, extra)
    for edge in (16, 48):
        assert encoder.feature_maps(torch.rand(1, 1, edge, edge))[-1].shape[2] == edge // encoder.strides[-1]


def test_positions_of_another_grid_span_the_same_range():
    own = sincos_positions((4, 4), 32)
    assert torch.equal(own, sincos_positions((4, 4), 32, span=(4, 4)))
    # Of a grid twice as fine, cells 2k and 2k + 1 lie a quarter of a cell on either side of cell k.
    fine = sincos_positions((8, 8), 32, span=(4, 4)).view(8, 8, 32)
    frequency = 10_000 ** (-torch.arange(8) / 8)
    assert torch.allclose(fine[2, 0, :8], (0.75 * frequency).sin(), atol=1e-6)


@pytest.mark.parametrize(("name", "extra"), CHOICES)
def test_a_mask_that_does_not_fit_is_refused(make_study, name, extra):
    encoder = encoder_of(make_study, name, extra)
    images = torch.rand(2, 1, 32, 64)
    rows, columns = 32 // encoder.strides[-1], 64 // encoder.strides[-1]
    for mask, words in (
        (torch.zeros(2, columns, rows), "expected a mask of shape"),
        (torch.zeros(2, 32, 64), "expected a mask of shape"),
        (torch.full((2, rows, columns), 0.5), "0 and 1 alone"),
        (torch.ones(2, rows, columns), "must keep something"),
    ):
        with pytest.raises(ValueError, match=words):
            encoder.feature_maps(images, mask)


@pytest.mark.parametrize(("name", "extra"), CHOICES)
def test_what_is_hidden_need_not_be_finite(make_study, name, extra):
    encoder = encoder_of(make_study, name, extra)
    images = torch.rand(1, 1, 32, 32)
    mask = torch.zeros(1, *[32 // encoder.strides[-1]] * 2)
    mask[0, 0, 0] = 1
    hidden = torch.nn.functional.interpolate(mask[:, None], images.shape[2:]) == 1
    for one in encoder.feature_maps(images.masked_fill(hidden, float("nan")), mask):
        assert one.isfinite().all()


def test_images_that_can_not_be_are_refused_in_words(make_study):
    encoder = encoder_of(make_study, "vit", {"patch_size": 8})
    with pytest.raises(ValueError, match="multiples of 8"):
        encoder.feature_maps(torch.rand(1, 1, 36, 36))
    with pytest.raises(ValueError, match="2 axes"):
        encoder.feature_maps(torch.rand(1, 1, 32, 32, 32))


def test_an_encoder_of_another_precision_takes_another_size(make_study):
    encoder = encoder_of(make_study, "vit", {"patch_size": 8}).bfloat16()
    assert encoder(torch.rand(1, 1, 64, 64).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["vit", "resnet"])
@pytest.mark.parametrize("modality", ["radiograph", "mr"])
def test_an_encoder_standardises_what_it_sees_by_its_modality(make_study, name, modality):
    study = make_study(
        encoder={"name": name, "size": "tiny"}, method={"name": "simclr"}, data={"modality": modality}
    )
    encoder = build_encoder(study)
    initialise(encoder, torch.Generator().manual_seed(0))
    images = torch.rand(2, 1, 16, 16)
    found, facts = encoder(images), MODALITIES[modality]
    encoder.scale = AS_IT_IS
    assert torch.allclose(encoder((images - facts.mean) / facts.deviation), found, atol=1e-5)
    assert not torch.allclose(encoder(images), found, atol=1e-2)
    assert build_encoder(study).architecture()["standardised"]["mean"] == facts.mean
