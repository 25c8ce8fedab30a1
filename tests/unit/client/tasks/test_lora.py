"""Low-rank adapters: identity at first, low in rank, the only thing of an encoder that trains, and part of it at the end."""

import copy

import pytest
import torch

from hilum.client.pretraining.device import make_fabric
from hilum.client.tasks.finetuning import EncoderWithHead, PooledLinear, hold
from hilum.client.tasks.lora import LowRank, add_adapters, merge_adapters
from hilum.common.encoders import build_encoder
from hilum.common.encoders.base import initialise

ENCODERS = {
    "vit": {"name": "vit", "size": "tiny", "patch_size": 8},
    "resnet": {"name": "resnet", "size": "tiny"},
}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=[(name, dims) for name in ENCODERS for dims in (2, 3)], ids=str)
def encoder(request, make_study):
    name, dims = request.param
    data = {"modality": "radiograph"} if dims == 2 else {"modality": "mr", "dims": 3}
    study = make_study(
        data={**data, "image_size": 16},
        encoder=ENCODERS[name],
        method={"name": "simclr"} if name == "resnet" else {"name": "mae"},
    )
    built = build_encoder(study)
    initialise(built, rng())
    return built


def images(encoder):
    return torch.rand(2, 1, *[16] * encoder.dims, generator=rng(1))


def moved(encoder):
    """Give every adapter's second factor values other than zero."""
    for inner in encoder.modules():
        if isinstance(inner, LowRank):
            torch.nn.init.normal_(inner.up, std=0.05, generator=rng(2))
    return encoder


def test_adapters_change_nothing_at_first(encoder):
    plain = copy.deepcopy(encoder)
    assert add_adapters(encoder, 4, 8.0, rng()) > 0
    given = images(encoder)
    assert torch.equal(encoder(given), plain(given))


def test_merged_adapters_give_plain_weights_that_compute_the_same(encoder):
    plain = copy.deepcopy(encoder)
    add_adapters(encoder, 4, 8.0, rng())
    given = images(encoder)
    with torch.no_grad():
        adapted = moved(encoder)(given)
        merge_adapters(encoder)
        assert {name: value.shape for name, value in encoder.state_dict().items()} == {
            name: value.shape for name, value in plain.state_dict().items()
        }
        plain.load_state_dict(encoder.state_dict())
        torch.testing.assert_close(plain(given), adapted, atol=1e-6, rtol=0)
    assert not torch.equal(adapted, plain(given * 0))


def test_adapters_alone_train_and_what_they_add_has_their_rank(encoder):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    add_adapters(encoder, 2, 4.0, rng())
    trained = [name for name, one in encoder.named_parameters() if one.requires_grad]
    assert trained
    assert all(name.endswith((".up", ".down")) for name in trained)
    merge_adapters(moved(encoder))
    changed = 0
    for name, value in encoder.state_dict().items():
        added = value - before[name]
        if added.abs().max() > 1e-4:
            changed += 1
            # What rounding adds to a sum of float32 is a millionth of the rest.
            assert (torch.linalg.svdvals(added.flatten(1))[2:] < 1e-4).all()
    assert changed == len(trained) // 2


@pytest.mark.parametrize("dims", [2, 3])
def test_an_adapted_convolution_is_one_to_fewer_channels_and_one_of_size_one_after_it(dims):
    convolution = (torch.nn.Conv2d, torch.nn.Conv3d)[dims - 2]
    functional = (torch.nn.functional.conv2d, torch.nn.functional.conv3d)[dims - 2]
    layer = convolution(3, 5, 3, stride=2, padding=1, bias=False)
    adapter = LowRank(layer.weight, 2, 6.0, rng())
    torch.nn.init.normal_(adapter.up, generator=rng(3))
    given = torch.rand(2, 3, *[9] * dims, generator=rng(4))
    small = functional(given, adapter.down, stride=2, padding=1)
    beside = functional(small, adapter.up.reshape(5, 2, *[1] * dims))
    found = functional(given, adapter(layer.weight), stride=2, padding=1)
    torch.testing.assert_close(found, layer(given) + 3.0 * beside, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["frozen", "lora", "finetune"])
def test_only_what_a_mode_names_moves(make_study, mode):
    study = make_study()
    built = build_encoder(study)
    initialise(built, rng())
    model = EncoderWithHead(built, PooledLinear(built, 2))
    hold(model.encoder, mode, study)
    before = copy.deepcopy(model.state_dict())
    fabric = make_fabric("cpu", "fp32", 1)
    module, optimizer = fabric.setup(
        model, torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    )
    module.train()
    assert built.norm.training == (mode != "frozen")
    for _ in range(3):
        optimizer.zero_grad()
        fabric.backward(module(images(built)).square().sum() + module(images(built)).sum())
        optimizer.step()
    moved_names = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {"head.weight", "head.bias"} <= moved_names
    in_encoder = {name for name in moved_names if name.startswith("encoder.")}
    if mode == "frozen":
        assert not in_encoder
    elif mode == "lora":
        assert in_encoder
        assert all(name.endswith((".up", ".down")) for name in in_encoder)
    else:
        assert "encoder.patch_embed.weight" in in_encoder
