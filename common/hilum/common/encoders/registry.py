"""The one list of encoders."""

from collections.abc import Callable
from dataclasses import dataclass

from hilum.common.config import StudyConfig
from hilum.common.config.choices import ResNetConfig, VitConfig
from hilum.common.encoders.base import Encoder
from hilum.common.encoders.resnet import BasicBlock, Bottleneck, ResNet
from hilum.common.encoders.vit import ViT

VIT_SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}  # width, depth, heads
RESNET_SIZES: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int], int]] = {
    "tiny": (BasicBlock, (1, 1, 1, 1), 32),
    "small": (BasicBlock, (2, 2, 2, 2), 64),
    "base": (Bottleneck, (3, 4, 6, 3), 64),
}


@dataclass(frozen=True)
class EncoderSpec:
    """One entry of `hilum encoders`."""

    name: str
    dims: tuple[int, ...]
    sizes: tuple[str, ...]
    normalisation: str
    paper: str
    build: Callable[[StudyConfig], Encoder]


def _build_vit(study: StudyConfig) -> ViT:
    config = study.encoder
    assert isinstance(config, VitConfig)
    width, depth, heads = VIT_SIZES[config.size]
    return ViT(
        dims=study.data.dims,
        image_size=study.data.image_size,
        patch_size=config.patch_size,
        width=width,
        depth=depth,
        heads=heads,
    )


def _build_resnet(study: StudyConfig) -> ResNet:
    config = study.encoder
    assert isinstance(config, ResNetConfig)
    block, depths, stem_width = RESNET_SIZES[config.size]
    return ResNet(
        dims=study.data.dims,
        image_size=study.data.image_size,
        block=block,
        depths=depths,
        stem_width=stem_width,
    )


ENCODERS = {
    spec.name: spec
    for spec in (
        EncoderSpec("vit", (2, 3), tuple(VIT_SIZES), "LayerNorm", "arXiv 2010.11929", _build_vit),
        EncoderSpec("resnet", (2, 3), tuple(RESNET_SIZES), "GroupNorm", "arXiv 1512.03385", _build_resnet),
    )
}


def build_encoder(study: StudyConfig) -> Encoder:
    """Return the study's encoder, its weights not yet given their first values (see `initialise`)."""
    return ENCODERS[study.encoder.name].build(study)
