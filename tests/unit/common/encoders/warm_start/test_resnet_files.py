"""Residual networks by torchvision's names: GroupNorm in place of BatchNorm, a stem of 3 in place of 7."""

import pytest
import torch
import torch.nn.functional as F

from foreign_weights import plain_resnet, torchvision_resnet
from hilum.common.encoders.warm_start.kernels import CORRELATION, adapt_kernel, narrowed
from hilum.common.encoders.warm_start.torchvision import group_norm_of


def smooth_images(count, edge, seed):
    """Images with neighbours that are alike, of mean 0 and deviation 1."""
    noise = torch.randn(count, 1, edge + 16, edge + 16, generator=torch.Generator().manual_seed(seed))
    images = F.avg_pool2d(F.avg_pool2d(noise, 9, 1), 9, 1)
    return images / images.std()


def test_group_norm_gives_what_batch_norm_gave_where_a_group_has_the_running_statistics():
    """A batch of one image whose own statistics are the running ones, channel by channel, and so group by group."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(1, 12, 9, 9, generator=rng) * (0.5 + torch.rand(12, 1, 1, generator=rng))
    x = x + torch.randn(12, 1, 1, generator=rng)
    weight, bias = 1 + torch.randn(12, generator=rng), torch.randn(12, generator=rng)
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    scale, *own = group_norm_of(weight, bias, mean, variance, groups=3)
    expected = F.batch_norm(x, mean, variance, weight, bias)
    torch.testing.assert_close(
        F.group_norm(x * scale.view(-1, 1, 1), 3, *own), expected, atol=2e-4, rtol=1e-3
    )


def test_narrow_kernels_are_the_least_squares_ones_over_images_of_that_correlation():
    """Beside a regression over samples that are drawn with that covariance."""
    rng = torch.Generator().manual_seed(2)
    kernel = torch.randn(4, 2, 7, 7, generator=rng)
    found, kept = narrowed(kernel, 3)
    places = torch.arange(7, dtype=torch.float64)
    along = CORRELATION ** (places[:, None] - places).abs()
    root = torch.linalg.cholesky(torch.kron(along, along))
    patches = torch.randn(400_000, 49, generator=rng, dtype=torch.float64) @ root.T
    responses = patches @ kernel.double().flatten(0, 1).flatten(1).T
    middle = patches.view(-1, 7, 7)[:, 2:5, 2:5].flatten(1)
    solved = torch.linalg.lstsq(middle, responses).solution
    # Samples know the solution to 3 %.
    assert (found.flatten(0, 1).flatten(1) - solved.T).norm() < 0.07 * solved.norm()
    assert kept == pytest.approx(((middle @ solved).var(0).sum() / responses.var(0).sum()).item(), abs=0.01)


@pytest.mark.parametrize(
    ("bottleneck", "depths", "size"), [(False, (2, 2, 2, 2), "small"), (True, (3, 4, 6, 3), "base")]
)
def test_every_tensor_of_a_resnet_is_accounted_for(encoder_of, start, bottleneck, depths, size):
    state = torchvision_resnet(depths, bottleneck=bottleneck)
    report = start(encoder_of("resnet", size=size), state)
    assert report.kind == "torchvision"
    assert report.first_values == ()
    by_name = {one.source: one for one in report.keys}
    assert {name for name, one in by_name.items() if one.outcome == "left"} == {
        "fc.weight", "fc.bias", *(name for name in state if name.endswith("num_batches_tracked")),
    }  # fmt: skip
    first = depths[0]
    assert by_name["layer2.0.downsample.0.weight"].target == f"stages.{first}.shortcut.0.weight"
    assert by_name["layer4.1.bn2.weight"].target == f"stages.{sum(depths[:3]) + 1}.norm2.weight"
    assert by_name["layer1.0.bn1.running_var"].how == "in the convolution before and the norm's weights"
    assert "the 3-wide kernels nearest to those of 7" in by_name["conv1.weight"].how


def test_features_stay_near_those_of_the_network_with_batch_norm(encoder_of, start):
    """With a stem of 3 the norm alone differs; copying the affine weights alone would give other features."""
    state = torchvision_resnet((1, 1, 1, 1), width=32, stem=3)
    plain_resnet(state, smooth_images(32, 64, seed=1).expand(-1, 3, -1, -1), pool=False, calibrate=True)
    encoder, images = encoder_of("resnet"), smooth_images(16, 64, seed=2)
    report = start(encoder, state)
    expected = plain_resnet(state, images.expand(-1, 3, -1, -1), pool=False)

    def error():
        with torch.no_grad():
            return float((encoder(images) - expected).norm() / expected.norm())

    adapted = error()
    copied = {
        one.target: state[one.source] for one in report.keys if one.target and "running" not in one.source
    }
    copied["stem.weight"] = state["conv1.weight"].sum(1, keepdim=True)
    encoder.load_state_dict(copied)
    assert adapted < 0.2
    assert error() > 2 * adapted


def test_kernels_take_other_channels_and_a_depth():
    kernel = torch.randn(5, 3, 3, 3)
    grey, volume = torch.randn(2, 1, 9, 9), torch.randn(2, 1, 9, 9)[:, :, None].expand(-1, -1, 7, -1, -1)
    one, _ = adapt_kernel(kernel, 1, 2)
    expected = F.conv2d(grey.expand(-1, 3, -1, -1), kernel)
    torch.testing.assert_close(F.conv2d(grey, one), expected, atol=1e-5, rtol=1e-5)
    four, _ = adapt_kernel(kernel, 4, 2)
    torch.testing.assert_close(F.conv2d(grey.expand(-1, 4, -1, -1), four), expected, atol=1e-5, rtol=1e-5)
    deep, said = adapt_kernel(kernel, 1, 3)
    assert deep.shape == (5, 1, 3, 3, 3)
    flat = F.conv2d(volume[:, :, 0], one)
    torch.testing.assert_close(F.conv3d(volume, deep)[:, :, 2], flat, atol=1e-5, rtol=1e-5)
    assert said == ["3 channels summed", "a plane repeated in depth and divided by it"]


def test_a_plane_becomes_a_volume(encoder_of, start):
    report = start(encoder_of("resnet", dims=3, image_size=32), torchvision_resnet((1, 1, 1, 1), width=32))
    hows = {one.source: one.how for one in report.keys}
    assert "a plane repeated in depth" in hows["conv1.weight"]
    assert "a plane repeated in depth" in hows["layer3.0.conv2.weight"]
