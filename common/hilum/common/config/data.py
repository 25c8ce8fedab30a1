"""Which images a study is about."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hilum.common.config.base import Section
from hilum.common.config.modalities import MODALITIES, Modality

if TYPE_CHECKING:
    ModalityName = str
else:
    ModalityName = Literal[tuple(MODALITIES)]


class DataSection(Section):
    """Which images, and at what size the encoder sees them."""

    modality: ModalityName
    dims: Literal[2, 3] = 2
    image_size: Annotated[int, Field(ge=8, le=1024)] = 64

    @property
    def facts(self) -> Modality:
        """What sets the modality apart."""
        return MODALITIES[self.modality]

    @property
    def store_size(self) -> int:
        """Edge of the prepared arrays: a quarter more than the view, so that crops keep real detail."""
        return self.image_size + self.image_size // 4
