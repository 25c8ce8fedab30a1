"""`[encoder.init]`: the file that an encoder's first weights come from."""

from pathlib import PurePath
from typing import Annotated

from pydantic import Field

from hilum.common.config.base import Section

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class InitSection(Section):
    """Start from pre-trained weights instead of random ones.

    Attributes:
        file: A safetensors file. In a study file it starts from the study's own folder. What an admin signs holds its name
            alone: nobody but who signs reads it.
        sha256: Of the file's bytes.
    """

    file: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,1024}$")]
    sha256: Sha256

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return PurePath(self.file).name
