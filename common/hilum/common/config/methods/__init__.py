"""The sections of methods: one file each, with what a method accepts and what it takes of a machine. No torch here."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hilum.common.config.methods.base import MethodSection
from hilum.common.config.methods.mae import MaeConfig
from hilum.common.config.methods.simclr import SimclrConfig
from hilum.common.config.named import names_of

MethodConfig = Annotated[MaeConfig | SimclrConfig, Field(discriminator="name")]

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[names_of(MethodConfig)]

__all__ = ["MaeConfig", "MethodConfig", "MethodName", "MethodSection", "SimclrConfig"]
