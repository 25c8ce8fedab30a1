"""ViTs as DINO (arXiv 2104.14294) and DINOv2 (arXiv 2304.07193) keep them: timm's names, with registers, scales of layers, blocks in chunks."""

import re
from collections.abc import Collection

from hilum.common.encoders.base import Encoder
from hilum.common.encoders.warm_start.conversion import Conversion, Style
from hilum.common.encoders.warm_start.vit_blocks import KERNEL, convert_vit, vit_facts, vit_target

_LEFT = {
    "mask_token": "what stood for patches that were hidden in pre-training",
    "head.": "the projection of DINO's loss",
    "dino_head.": "the projection of DINO's loss",
    "ibot_head.": "the projection of iBOT's loss",
}
_SIGNS = re.compile(
    r"mask_token|register_tokens|(?:dino_|ibot_)?head\.(?:last_layer|mlp)\..*|blocks\.\d+\.\d+\..*"
)


def _recognises(names: Collection[str]) -> bool:
    is_mae = any(name.startswith("decoder_") for name in names)
    return KERNEL in names and not is_mae and any(_SIGNS.fullmatch(name) for name in names)


def _convert(out: Conversion, encoder: Encoder) -> None:
    convert_vit(out, encoder, _LEFT)


DINO = Style("dino", "vit", _recognises, vit_facts, vit_target, _convert)
