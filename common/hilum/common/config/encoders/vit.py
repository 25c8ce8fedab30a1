"""The section of the vision transformer, and its size.

Shapes: L patches, E embedding, P values in a patch.
"""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hilum.common.config.data import DataSection
from hilum.common.config.encoders.base import EncoderSection, Size

SIZES: dict[Size, tuple[int, int, int]] = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
"""Width, depth, heads."""

BLOCK_VALUES = 18
"""Widths kept of one token by one block: two norms and their outputs, q, k, v, mixed, the MLP's 4 and 4."""


def block_widths(depth: int, recomputed: bool) -> int:
    """Return the widths kept of one token by all blocks: of recomputed ones their inputs, and all of one of them."""
    return depth + BLOCK_VALUES if recomputed else BLOCK_VALUES * depth


def block_parameters(width: int) -> int:
    """Return the parameters of a transformer block: attention 4 E^2 + 4 E, MLP 8 E^2 + 5 E, two norms 4 E."""
    return 12 * width**2 + 13 * width


class VitConfig(EncoderSection):
    """Vision transformer (arXiv 2010.11929) over square or cubic patches.

    Attributes:
        positions: `sincos` are computed and never change; `learned` are a table that travels and trains like any other
            tensor, for weights that were trained with one.
    """

    drops_patches: ClassVar[bool] = True
    layer_decay: ClassVar[float] = 0.75  # as masked autoencoders are fine-tuned (arXiv 2111.06377, table 9)

    name: Literal["vit"]
    size: Size = "tiny"
    patch_size: Annotated[int, Field(ge=1, le=64)] = 8
    positions: Literal["sincos", "learned"] = "sincos"

    def misfit(self, data: DataSection) -> str | None:
        """See `EncoderSection`."""
        if any(edge % self.patch_size for edge in data.view_size):
            size = list(data.image_size) if isinstance(data.image_size, tuple) else data.image_size
            return f"data.image_size = {size} is not a multiple of encoder.patch_size = {self.patch_size}; choose one that is"
        return None

    @property
    def width(self) -> int:
        """See `EncoderSection`."""
        return SIZES[self.size][0]

    def parameters(self, data: DataSection) -> int:
        """See `EncoderSection`."""
        width, depth, _ = SIZES[self.size]
        table = self.tokens(data) * width if self.positions == "learned" else 0
        return (self.patch_values(data) + 1) * width + depth * block_parameters(width) + 2 * width + table

    def tokens(self, data: DataSection) -> int:
        """See `EncoderSection`."""
        return math.prod(edge // self.patch_size for edge in data.view_size)

    def patch_values(self, data: DataSection) -> int:
        """See `EncoderSection`."""
        return int(self.patch_size**data.dims * data.facts.channels)

    def kept_values(self, data: DataSection, seen: int | None = None, *, recomputed: bool = False) -> int:
        """See `EncoderSection`."""
        width, depth, _ = SIZES[self.size]
        L = self.tokens(data)
        encoded = L if seen is None else seen
        return L * (self.patch_values(data) + width) + encoded * width * (block_widths(depth, recomputed) + 4)

    @property
    def layers(self) -> int:
        """See `EncoderSection`."""
        return SIZES[self.size][1]

    @property
    def position_width(self) -> int:
        """See `EncoderSection`."""
        return self.width if self.positions == "sincos" else 0
