"""The sections whose keys depend on a name: encoders, methods and aggregators, each with its own parameters and no others.

Every number has an upper bound: a study comes from elsewhere. What a machine can hold is estimated besides
(`hilum.common.footprint`).
"""

from typing import Annotated, Literal

from pydantic import Field

from hilum.common.config.base import Section

Size = Literal["tiny", "small", "base"]
EncoderName = Literal["vit", "resnet"]
MethodName = Literal["mae", "simclr"]
MaskRatio = Annotated[float, Field(gt=0, lt=1)]


class VitConfig(Section):
    """Vision transformer (arXiv 2010.11929) over square or cubic patches."""

    name: Literal["vit"]
    size: Size = "tiny"
    patch_size: Annotated[int, Field(ge=1, le=64)] = 8


class ResNetConfig(Section):
    """Residual network (arXiv 1512.03385) with GroupNorm."""

    name: Literal["resnet"]
    size: Size = "small"


EncoderConfig = Annotated[VitConfig | ResNetConfig, Field(discriminator="name")]


class MaeConfig(Section):
    """Masked autoencoder (arXiv 2111.06377)."""

    name: Literal["mae"]
    mask_ratio: MaskRatio = 0.75
    decoder_width: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] = 96
    decoder_depth: Annotated[int, Field(ge=1, le=16)] = 2
    share_decoder: bool = True


class SimclrConfig(Section):
    """SimCLR (arXiv 2002.05709)."""

    name: Literal["simclr"]
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.2
    projection_width: Annotated[int, Field(ge=1, le=4096)] = 128


MethodConfig = Annotated[MaeConfig | SimclrConfig, Field(discriminator="name")]


class FedAvgConfig(Section):
    """Federated averaging (arXiv 1602.05629)."""

    name: Literal["fedavg"]


class FedAvgMConfig(Section):
    """Federated averaging with momentum at the server (arXiv 1909.06335).

    Attributes:
        momentum: What is kept of the rounds before. An update that is the same in every round moves the weights up to
            `learning_rate / (1 - momentum)` times as far as federated averaging does.
    """

    name: Literal["fedavgm"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1.0


AggregatorConfig = Annotated[FedAvgConfig | FedAvgMConfig, Field(discriminator="name")]
