"""Encoders that Hilum made, by their own names: a `model.safetensors`, with `manifest.json` beside it or without.

Shapes: E width, p edge of a patch, C channels.
"""

from collections.abc import Collection
from typing import Any

from torch import Tensor

from hilum.common.encoders.base import Encoder
from hilum.common.encoders.resnet import ResNet
from hilum.common.encoders.transformer import sincos_positions
from hilum.common.encoders.vit import ViT
from hilum.common.encoders.warm_start.conversion import Conversion, Facts, Style
from hilum.common.encoders.warm_start.kernels import adapt_kernel
from hilum.common.encoders.warm_start.positions import take_positions
from hilum.common.encoders.warm_start.source import Source
from hilum.common.files import read_json

_TABLE = "position_table.weight"
_KERNEL = "patch_embed.weight"
_PLANE, _VOLUME = 2, 3


def _described(source: Source) -> dict[str, Any]:
    """Return what the manifest beside a file says of its network; nothing, if there is none that fits it."""
    try:
        facts = read_json(source.path.with_name("manifest.json"))
        shapes = {one["name"]: tuple(one["shape"]) for one in facts["tensors"]}
        if shapes == {source.stored(name): source.shape(name) for name in source.names}:
            return dict(facts["architecture"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def _patch(source: Source, encoder: Encoder | None) -> tuple[int, int, int]:
    """Return edge, dimensions and channels of a patch: as described, or as the study's network reads it, or of one channel."""
    described, values = _described(source), source.shape(_KERNEL)[1]
    if described.get("kind") == "vit":
        return int(described["patch_size"]), int(described["dims"]), int(described["channels"])
    if isinstance(encoder, ViT):
        for dims in {encoder.dims: None, _PLANE: None}:
            channels, left = divmod(values, encoder.patch_size**dims)
            if not left and channels in {1, 3, encoder.channels}:
                return encoder.patch_size, dims, channels
    for dims in (_PLANE, _VOLUME):
        edge = round(values ** (1 / dims))
        if edge**dims == values:
            return edge, dims, 1
    return values, 1, 1


def _vit_facts(source: Source, encoder: Encoder | None = None) -> Facts:
    edge, dims, _ = _patch(source, encoder)
    blocks = {name.split(".")[1] for name in source.names if name.startswith("blocks.")}
    facts: dict[str, object] = {
        "width": source.shape(_KERNEL)[0],
        "depth": len(blocks),
        "patch size": edge,
        "dimensions": dims,
    }
    described = _described(source)
    return {**facts, "heads": described["heads"]} if "heads" in described else facts


def _convert_vit(out: Conversion, encoder: Encoder) -> None:
    assert isinstance(encoder, ViT)
    source = out.source
    edge, dims, channels = _patch(source, encoder)
    own = encoder.state_dict()
    for name in source.names:
        if name == _KERNEL:
            kernel = source.tensor(name).reshape(-1, *[edge] * dims, channels).movedim(-1, 1)
            kernel, done = adapt_kernel(kernel, encoder.channels, encoder.dims)
            out.take(name, name, kernel.movedim(1, -1).flatten(1), "; ".join(done))
        elif name in own and name != _TABLE:
            out.take(name, name)
        elif name != _TABLE:
            out.homeless.append(name)
    if _TABLE in source.names:
        take_positions(out, encoder, _TABLE, dims, 0)
    elif dims < encoder.dims:
        out.notes.append("positions in a volume are others than those in the plane of the file's network")
    elif encoder.position_table is not None:
        out.tensors[_TABLE] = sincos_positions(encoder.grid, encoder.width)[0]
        out.notes.append("the table of positions begins with those that the file's network computes")
    out.optional.add(_TABLE)
    if not _described(source):
        out.notes.append(
            "no manifest.json of these tensors lies beside the file: patches and heads are taken for the study's"
        )


def _resnet_facts(source: Source, encoder: Encoder | None = None) -> Facts:
    del encoder
    stem = source.shape("stem.weight")
    widths = [source.shape(name)[0] for name in source.names if name.endswith(".conv1.weight")]
    return {
        "width": stem[0],
        "blocks in each stage": tuple(widths.count(stem[0] * 2**stage) for stage in range(4)),
        "convolutions in a block": 3 if "stages.0.conv3.weight" in source.names else 2,
        "dimensions": len(stem) - 2,
    }


def _convert_resnet(out: Conversion, encoder: Encoder) -> None:
    assert isinstance(encoder, ResNet)
    own = encoder.state_dict()
    for name in out.source.names:
        if name not in own:
            out.homeless.append(name)
        elif own[name].ndim == 1:
            out.take(name, name)
        else:
            kernel: Tensor = out.source.tensor(name)
            kernel, done = adapt_kernel(kernel, own[name].shape[1], encoder.dims)
            out.take(name, name, kernel, "; ".join(done))


def _same(name: str, encoder: Encoder) -> str | None:
    return name if name in encoder.state_dict() else None


def _is_vit(names: Collection[str]) -> bool:
    return {_KERNEL, "blocks.0.attention.qkv.weight"} <= set(names)


def _is_resnet(names: Collection[str]) -> bool:
    return {"stem.weight", "stages.0.conv1.weight"} <= set(names)


OWN = (
    Style("hilum", "vit", _is_vit, _vit_facts, _same, _convert_vit),
    Style("hilum", "resnet", _is_resnet, _resnet_facts, _same, _convert_resnet),
)
