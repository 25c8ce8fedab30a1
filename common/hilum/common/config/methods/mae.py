"""The section of the masked autoencoder, and its size."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hilum.common.config.data import DataSection
from hilum.common.config.encoders.base import EncoderSection
from hilum.common.config.encoders.vit import block_parameters, block_widths
from hilum.common.config.methods.base import MethodSection

_MIN_PATCHES = 2
_WIDE = 384  # of a small ViT
_DECODER, _TINY_DECODER = (512, 8), (96, 2)


class MaeConfig(MethodSection):
    """Masked autoencoder (arXiv 2111.06377).

    Attributes:
        decoder_width: Of the decoder's tokens; 512 for a small or base encoder as in the paper, 96 for a tiny one.
        decoder_depth: Its blocks; 8 or 2.
    """

    base_learning_rate: ClassVar[float] = 1.5e-4  # appendix A.1

    name: Literal["mae"]
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    decoder_width: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] | None = None
    decoder_depth: Annotated[int, Field(ge=1, le=16)] | None = None
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

    def decoder(self, encoder_width: int) -> tuple[int, int]:
        """Return the decoder's width and depth beside an encoder of a width."""
        width, depth = _DECODER if encoder_width >= _WIDE else _TINY_DECODER
        return self.decoder_width or width, self.decoder_depth or depth

    def kept_patches(self, tokens: int) -> int:
        """Return how many of an image's patches the encoder sees: at least one, and never all."""
        return min(max(1, round(tokens * (1 - self.mask_ratio))), tokens - 1)

    def head_parameters(self, encoder: EncoderSection, data: DataSection) -> int:
        """Return the decoder's parameters."""
        (inner, depth), outer = self.decoder(encoder.width), encoder.patch_values(data)
        embed = (encoder.width + 1) * inner + inner  # and the mask token
        return embed + depth * block_parameters(inner) + 2 * inner + (inner + 1) * outer

    def shared_head_parameters(self, encoder: EncoderSection, data: DataSection) -> int:
        """See `MethodSection`."""
        return self.head_parameters(encoder, data) if self.share_decoder else 0

    def kept_values(self, encoder: EncoderSection, data: DataSection, *, recomputed: bool = False) -> int:
        """See `MethodSection`."""
        L = encoder.tokens(data)
        width, depth = self.decoder(encoder.width)
        decoded = L * width * (block_widths(depth, recomputed) + 6)
        predicted = (
            4 * L * encoder.patch_values(data)
        )  # patches, normalised ones, the prediction and the error
        return encoder.kept_values(data, self.kept_patches(L), recomputed=recomputed) + decoded + predicted

    def position_width(self, encoder: EncoderSection) -> int:
        """See `MethodSection`."""
        return self.decoder(encoder.width)[0]
