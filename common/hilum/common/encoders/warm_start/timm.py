"""ViTs by timm's names (`vit_tiny_patch16_224` and its like)."""

from collections.abc import Collection

from hilum.common.encoders.base import Encoder
from hilum.common.encoders.warm_start.conversion import Conversion, Style
from hilum.common.encoders.warm_start.vit_blocks import KERNEL, convert_vit, vit_facts, vit_target

_LEFT = {
    "head": "a head for classes; each task here makes its own",
    "fc_norm.": "the norm of a head; the file has the encoder's own beside it",
    "pre_logits.": "a part of a head",
}


def _recognises(names: Collection[str]) -> bool:
    return KERNEL in names and any(name.endswith(".attn.qkv.weight") for name in names)


def _convert(out: Conversion, encoder: Encoder) -> None:
    convert_vit(out, encoder, _LEFT)


TIMM = Style("timm", "vit", _recognises, vit_facts, vit_target, _convert)
