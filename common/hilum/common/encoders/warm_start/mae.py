"""ViTs as the masked autoencoder keeps them (arXiv 2111.06377): timm's names, fixed positions, a decoder beside."""

from collections.abc import Collection

from hilum.common.encoders.base import Encoder
from hilum.common.encoders.warm_start.conversion import Conversion, Style
from hilum.common.encoders.warm_start.vit_blocks import KERNEL, convert_vit, vit_facts, vit_target

_LEFT = {
    "decoder_": "of the decoder, which the study's method makes itself",
    "mask_token": "of the decoder, which the study's method makes itself",
    "head.": "a head for classes; each task here makes its own",
}


def _recognises(names: Collection[str]) -> bool:
    return KERNEL in names and "decoder_embed.weight" in names


def _convert(out: Conversion, encoder: Encoder) -> None:
    convert_vit(out, encoder, _LEFT)


MAE = Style("mae", "vit", _recognises, vit_facts, vit_target, _convert)
