"""Residual networks by torchvision's names, which timm's plain ones have too.

Two layers differ from the study's network. Its stem is 3 wide, theirs 7: the nearest narrow kernel is taken. It has
GroupNorm, theirs BatchNorm, whose running mean and variance have no place: they go into the convolution before and the
norm's own weights, so that GroupNorm gives what BatchNorm gave wherever a group of an image has the mean and the
variance that they tell.

Shapes: K channels.
"""

import re
from collections.abc import Collection

from torch import Tensor, nn

from hilum.common.encoders.base import Encoder
from hilum.common.encoders.resnet import ResNet
from hilum.common.encoders.warm_start.conversion import Conversion, Facts, Style
from hilum.common.encoders.warm_start.kernels import adapt_kernel, narrowed
from hilum.common.encoders.warm_start.source import Source

_LAYER = re.compile(r"layer(\d)\.(\d+)\.(.+)")
_STAGES = 4
_EPS = 1e-5  # of BatchNorm
_FOLDED = "in the convolution before and the norm's weights"
_PARTS = {
    **{f"conv{n}.weight": f"conv{n}.weight" for n in (1, 2, 3)},
    **{
        f"bn{n}.{what}": f"norm{n}.{what}"
        for n in (1, 2, 3)
        for what in ("weight", "bias", "running_mean", "running_var")
    },
    "downsample.0.weight": "shortcut.0.weight",
    **{
        f"downsample.1.{what}": f"shortcut.1.{what}"
        for what in ("weight", "bias", "running_mean", "running_var")
    },
}


def group_norm_of(
    weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what makes GroupNorm give what BatchNorm gave, where a group's statistics are the running ones.

    After the convolution's outputs are scaled, each channel has variance 1 and the mean c = mean / deviation; a group of
    them has the mean m of its c, and the variance s^2 = 1 + that of its c. GroupNorm gives (x - m) / s, BatchNorm wants x - c.

    Args:
        weight: (K,) of BatchNorm.
        bias: (K,) of BatchNorm.
        mean: (K,) running.
        variance: (K,) running.
        groups: Of GroupNorm.

    Returns:
        (K,) each: what to multiply the convolution's outputs by, and GroupNorm's weight and bias.
    """
    scale = 1 / (variance + _EPS).sqrt()
    centre = (mean * scale).view(groups, -1)
    middle = centre.mean(1, keepdim=True)
    away = centre - middle
    spread = (1 + away.square().mean(1, keepdim=True)).sqrt().expand_as(centre)
    return scale, weight * spread.flatten(), bias - weight * away.flatten()


def _recognises(names: Collection[str]) -> bool:
    return {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"} <= set(names)


def _facts(source: Source, encoder: Encoder | None = None) -> Facts:
    del encoder
    depths = [0] * _STAGES
    for name in source.names:
        if (match := _LAYER.fullmatch(name)) and 1 <= int(match[1]) <= _STAGES:
            depths[int(match[1]) - 1] = max(depths[int(match[1]) - 1], int(match[2]) + 1)
    bottleneck = "layer1.0.conv3.weight" in source.names
    return {
        "width": source.shape("conv1.weight")[0],
        "blocks in each stage": tuple(depths),
        "convolutions in a block": 3 if bottleneck else 2,
        "dimensions": len(source.shape("conv1.weight")) - 2,
    }


def _convert(out: Conversion, encoder: Encoder) -> None:
    assert isinstance(encoder, ResNet)
    source = out.source
    for name in source.names:
        target = _target(name, encoder)
        if name.endswith("num_batches_tracked"):
            out.leave(name, "a counter of BatchNorm")
        elif name.startswith("fc."):
            out.leave(name, "a head for classes; each task here makes its own")
        elif target is None:
            out.homeless.append(name)
        elif target.endswith(("running_mean", "running_var")):
            continue  # below, when all else is there
        elif target == "stem.weight":
            _take_stem(out, encoder, name)
        elif len(source.shape(name)) > 1:
            kernel, done = adapt_kernel(source.tensor(name), source.shape(name)[1], encoder.dims)
            out.take(name, target, kernel, "; ".join(done))
        else:
            out.take(name, target)
    for name in [one for one in source.names if one.endswith("running_var")]:
        if (target := _target(name, encoder)) is not None:
            norm = target.removesuffix(".running_var")
            _without_statistics(out, encoder, name.removesuffix(".running_var"), norm)


def _take_stem(out: Conversion, encoder: ResNet, name: str) -> None:
    kernel, edge = out.source.tensor(name), encoder.stem.kernel_size[0]
    kernel, done = adapt_kernel(kernel, encoder.stem.in_channels, kernel.ndim - 2)
    if kernel.shape[-1] > edge and kernel.ndim == 4:  # noqa: PLR2004 - (O, C, k, k)
        wide = kernel.shape[-1]
        kernel, kept = narrowed(kernel, edge)
        done.append(
            f"the {edge}-wide kernels nearest to those of {wide}: {kept:.0%} of the variance of their responses is kept"
        )
    kernel, more = adapt_kernel(kernel, encoder.stem.in_channels, encoder.dims)
    out.take(name, "stem.weight", kernel, "; ".join([*done, *more]))


def _without_statistics(out: Conversion, encoder: Encoder, name: str, norm: str) -> None:
    """Let a GroupNorm and the convolution before it do without a BatchNorm's running statistics."""
    before = (
        "stem" if norm == "stem_norm" else norm.replace("shortcut.1", "shortcut.0").replace("norm", "conv")
    )
    targets = (f"{norm}.weight", f"{norm}.bias", f"{before}.weight")
    if not all(target in out.tensors for target in targets):
        return  # told as a difference
    weight, bias, kernel = (out.tensors[target] for target in targets)
    layer = encoder.get_submodule(norm)
    assert isinstance(layer, nn.GroupNorm)
    running = [out.source.tensor(f"{name}.running_{what}") for what in ("mean", "var")]
    scale, *made = group_norm_of(weight, bias, running[0], running[1], layer.num_groups)
    for target, tensor in zip(targets, made, strict=False):
        out.reform(target, tensor, "BatchNorm's running statistics put in, for GroupNorm has none")
    scaled = kernel * scale.view(-1, *[1] * (kernel.ndim - 1))
    out.reform(targets[-1], scaled, "divided by BatchNorm's running deviation")
    for what in ("mean", "var"):
        out.fold(f"{name}.running_{what}", targets[0], _FOLDED)


def _target(name: str, encoder: Encoder) -> str | None:
    """Return the encoder's name of a tensor; None if it has none."""
    assert isinstance(encoder, ResNet)
    depths = encoder.depths
    if name == "conv1.weight":
        return "stem.weight"
    if name.startswith("bn1.") and name in _PARTS:
        return name.replace("bn1", "stem_norm")
    match = _LAYER.fullmatch(name)
    if match is None or match[3] not in _PARTS or not 1 <= int(match[1]) <= _STAGES:
        return None
    return f"stages.{sum(depths[: int(match[1]) - 1]) + int(match[2])}.{_PARTS[match[3]]}"


TORCHVISION = Style("torchvision", "resnet", _recognises, _facts, _target, _convert)
