"""What all ViTs share that name their tensors as timm does; DINO's and MAE's do, but for what is around the blocks.

Shapes: E width, C channels in the file, p edge of a patch.
"""

import re

from hilum.common.encoders.base import Encoder
from hilum.common.encoders.vit import ViT
from hilum.common.encoders.warm_start.conversion import Conversion, Facts
from hilum.common.encoders.warm_start.kernels import adapt_kernel
from hilum.common.encoders.warm_start.positions import take_positions
from hilum.common.encoders.warm_start.source import Source

KERNEL = "patch_embed.proj.weight"
_BLOCK = re.compile(r"blocks\.(?:\d+\.)?(\d+)\.(.+)")  # DINOv2 may have blocks.CHUNK.NUMBER
_PLACES = {
    "norm1": "norm1",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm2": "norm2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
_SCALES = {"attn.proj": "ls1.gamma", "mlp.fc2": "ls2.gamma"}
_TOKENS = {
    name: f"the study's ViT has no {words}: its attention is over patches alone"
    for name, words in {
        "cls_token": "class token",
        "dist_token": "distillation token",
        "reg_token": "registers",
        "register_tokens": "registers",
    }.items()
}
_HEAD_WIDTH = 64


def vit_facts(source: Source, encoder: Encoder | None = None) -> Facts:
    """Return width, depth, edge of a patch, dimensions and the MLP's width of a file's ViT."""
    del encoder
    kernel = source.shape(KERNEL)
    numbers = [int(match[1]) for name in source.names if (match := _BLOCK.fullmatch(name))]
    facts: dict[str, object] = {
        "width": kernel[0],
        "depth": max(numbers, default=-1) + 1,
        "patch size": kernel[2],
        "dimensions": len(kernel) - 2,
    }
    first = next((name for name in source.names if name.endswith(".mlp.fc1.weight")), None)
    return facts if first is None else {**facts, "width of the MLP": source.shape(first)[0]}


def convert_vit(out: Conversion, encoder: Encoder, left: dict[str, str]) -> None:
    """Take the patch embedding, the blocks, the last norm and the positions.

    Args:
        out: The file, and where to put what is taken.
        encoder: The study's.
        left: By the beginning of their names, what else the file may hold, and why it is left.
    """
    assert isinstance(encoder, ViT)
    source, names = out.source, set(out.source.names)
    reasons = {**_TOKENS, **left}
    for name in source.names:
        if match := _BLOCK.fullmatch(name):
            _take_of_block(out, encoder, name, match[2])
        elif name == KERNEL:
            kernel, done = adapt_kernel(source.tensor(name), encoder.channels, encoder.dims)
            said = "; ".join(["a convolution as one linear layer over a patch", *done])
            out.take(name, "patch_embed.weight", kernel.movedim(1, -1).flatten(1), said)
        elif (target := vit_target(name, encoder)) is not None:
            out.take(name, target)
        elif name.startswith("fc_norm.") and name.replace("fc_", "") not in names:
            out.take(name, name.replace("fc_", ""), how="was after the mean over patches, is before it")
        elif name.startswith(("patch_embed.", "norm_pre.")):
            out.homeless.append(name)
        elif name != "pos_embed":
            why = next((words for begin, words in reasons.items() if name.startswith(begin)), None)
            out.leave(name, why or "no part of a ViT's encoder")
    out.optional |= {f"blocks.{number}.attention.qkv.bias" for number in range(len(encoder.blocks))}
    out.optional |= {"norm.weight", "norm.bias", "patch_embed.bias", "position_table.weight"}
    others = sum(source.shape(name)[-2] for name in _TOKENS if name in names)
    if "pos_embed" in names:
        take_positions(out, encoder, "pos_embed", len(source.shape(KERNEL)) - 2, others)
    out.notes.append(
        f"the file does not tell how many heads its blocks have: taken for {encoder.width // _HEAD_WIDTH}, {_HEAD_WIDTH} features "
        "each, as in the published networks of this width"
    )


def vit_target(name: str, encoder: Encoder) -> str | None:
    """Return the encoder's name of a tensor; None if it has none."""
    del encoder
    if match := _BLOCK.fullmatch(name):
        layer, _, kind = match[2].rpartition(".")
        known = layer in _PLACES and kind in {"weight", "bias"}
        return f"blocks.{match[1]}.{_PLACES[layer]}.{kind}" if known else None
    around = {KERNEL: "patch_embed.weight", "patch_embed.proj.bias": "patch_embed.bias"}
    return around.get(name, name if name in {"norm.weight", "norm.bias"} else None)


def _take_of_block(out: Conversion, encoder: Encoder, name: str, part: str) -> None:
    target, layer = vit_target(name, encoder), part.rpartition(".")[0]
    if part in _SCALES.values():
        scaled = next(of for of, gamma in _SCALES.items() if gamma == part)
        into = vit_target(name.removesuffix(part) + f"{scaled}.weight", encoder)
        out.fold(name, into, "multiplied into the layer before it")
    elif target is None:
        out.homeless.append(name)
    elif layer in _SCALES and (gamma := name.removesuffix(part) + _SCALES[layer]) in out.source.names:
        by, tensor = out.source.tensor(gamma), out.source.tensor(name)
        out.take(
            name, target, (tensor.mT * by).mT if tensor.ndim > 1 else tensor * by, f"times {_SCALES[layer]}"
        )
    else:
        out.take(name, target)
