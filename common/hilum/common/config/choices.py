"""The sections whose keys depend on a name: encoders and methods, each with its own parameters and no others."""

from typing import Annotated, Literal

from pydantic import Field

from hilum.common.config.base import Positive, Section

Size = Literal["tiny", "small", "base"]
MaskRatio = Annotated[float, Field(gt=0, lt=1)]


class VitConfig(Section):
    """Vision transformer (arXiv 2010.11929) over square or cubic patches."""

    name: Literal["vit"]
    size: Size = "tiny"
    patch_size: Positive = 8


class ResNetConfig(Section):
    """Residual network (arXiv 1512.03385) with GroupNorm."""

    name: Literal["resnet"]
    size: Size = "small"


EncoderConfig = Annotated[VitConfig | ResNetConfig, Field(discriminator="name")]


class MaeConfig(Section):
    """Masked autoencoder (arXiv 2111.06377)."""

    name: Literal["mae"]
    mask_ratio: MaskRatio = 0.75
    decoder_width: Annotated[int, Field(ge=32, multiple_of=32)] = 96
    decoder_depth: Positive = 2


class SimclrConfig(Section):
    """SimCLR (arXiv 2002.05709)."""

    name: Literal["simclr"]
    temperature: Annotated[float, Field(gt=0)] = 0.2
    projection_width: Positive = 128


MethodConfig = Annotated[MaeConfig | SimclrConfig, Field(discriminator="name")]
