"""The one list of encoders."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hilum.common.config import StudyConfig
from hilum.common.config.encoders import EncoderSection, ResNetConfig, VitConfig, resnet, vit
from hilum.common.config.methods import MethodSection
from hilum.common.encoders.base import Encoder
from hilum.common.encoders.resnet import ResNet
from hilum.common.encoders.vit import ViT


@dataclass(frozen=True)
class EncoderSpec:
    """One entry of `hilum encoders`.

    Attributes:
        config: Its section, which knows what it fits.
        build: Gives the network for its section and the images.
    """

    name: str
    dims: tuple[int, ...]
    sizes: tuple[str, ...]
    normalisation: str
    paper: str
    config: type[EncoderSection]
    build: Callable[[Any, Any], Encoder]


ENCODERS = {
    spec.name: spec
    for spec in (
        EncoderSpec("vit", (2, 3), tuple(vit.SIZES), "LayerNorm", "arXiv 2010.11929", VitConfig, ViT.of),
        EncoderSpec(
            "resnet", (2, 3), tuple(resnet.SIZES), "GroupNorm", "arXiv 1512.03385", ResNetConfig, ResNet.of
        ),
    )
}


def build_encoder(study: StudyConfig) -> Encoder:
    """Return the study's encoder, its weights not yet given their first values (see `initialise`)."""
    return ENCODERS[study.encoder.name].build(study.encoder, study.data)


def encoders_for(method: type[MethodSection]) -> list[str]:
    """Return the names of the encoders that a method accepts."""
    return [spec.name for spec in ENCODERS.values() if method.misfit(spec.config) is None]
