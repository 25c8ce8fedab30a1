"""The section of the masked autoencoder, and its size."""

from typing import Annotated, Literal

from pydantic import Field

from hilum.common.config.data import DataSection
from hilum.common.config.encoders.base import EncoderSection
from hilum.common.config.encoders.vit import BLOCK_VALUES, block_parameters
from hilum.common.config.methods.base import MethodSection

_MIN_PATCHES = 2


class MaeConfig(MethodSection):
    """Masked autoencoder (arXiv 2111.06377)."""

    name: Literal["mae"]
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    decoder_width: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] = 96
    decoder_depth: Annotated[int, Field(ge=1, le=16)] = 2
    share_decoder: bool = True

    @classmethod
    def misfit(cls, encoder: type[EncoderSection]) -> str | None:
        """See `MethodSection`."""
        return None if encoder.drops_patches else "drops patches before the encoder"

    def too_small(self, encoder: EncoderSection, data: DataSection) -> str | None:
        """See `MethodSection`: of one patch, the encoder would see none."""
        if encoder.tokens(data) >= _MIN_PATCHES:
            return None
        return (
            f'an image has {encoder.tokens(data)} patch for the encoder, and method.name = "mae" hides some and shows others; '
            "write a smaller encoder.patch_size, or a larger data.image_size"
        )

    def kept_patches(self, tokens: int) -> int:
        """Return how many of an image's patches the encoder sees: at least one, and never all."""
        return min(max(1, round(tokens * (1 - self.mask_ratio))), tokens - 1)

    def head_parameters(self, encoder: EncoderSection, data: DataSection) -> int:
        """Return the decoder's parameters."""
        inner, outer = self.decoder_width, encoder.patch_values(data)
        embed = (encoder.width + 1) * inner + inner  # and the mask token
        return embed + self.decoder_depth * block_parameters(inner) + 2 * inner + (inner + 1) * outer

    def shared_head_parameters(self, encoder: EncoderSection, data: DataSection) -> int:
        """See `MethodSection`."""
        return self.head_parameters(encoder, data) if self.share_decoder else 0

    def kept_values(self, encoder: EncoderSection, data: DataSection) -> int:
        """See `MethodSection`."""
        L = encoder.tokens(data)
        decoded = L * self.decoder_width * (BLOCK_VALUES * self.decoder_depth + 6)
        predicted = (
            4 * L * encoder.patch_values(data)
        )  # patches, normalised ones, the prediction and the error
        return encoder.kept_values(data, self.kept_patches(L)) + decoded + predicted

    @property
    def position_width(self) -> int:
        """See `MethodSection`."""
        return self.decoder_width
