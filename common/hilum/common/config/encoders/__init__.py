"""The sections of encoders: one file each, with what an encoder accepts and what it takes of a machine.

No torch here: a site's link, and whoever checks a study, must not load it.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hilum.common.config.encoders.base import EncoderSection, Size
from hilum.common.config.encoders.init import InitSection
from hilum.common.config.encoders.resnet import ResNetConfig
from hilum.common.config.encoders.vit import VitConfig
from hilum.common.config.named import names_of

EncoderConfig = Annotated[VitConfig | ResNetConfig, Field(discriminator="name")]

if TYPE_CHECKING:
    EncoderName = str
else:
    EncoderName = Literal[names_of(EncoderConfig)]

__all__ = [
    "EncoderConfig",
    "EncoderName",
    "EncoderSection",
    "InitSection",
    "ResNetConfig",
    "Size",
    "VitConfig",
]
