"""The section of the residual network, and its size."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hilum.common.config.data import DataSection
from hilum.common.config.encoders.base import EncoderSection, Size

POOL_FROM_SIZE = 96
"""Longest edge of an image, from which on the stem halves the resolution twice; smaller ones keep it."""

_NORMED = 3  # kept of each convolution: its output, the norm's, the activation's
_VOXELS_A_TOKEN = 1024


class Shape(NamedTuple):
    """What a size stands for: the kernels of a block, how much wider it ends, blocks in each stage, the stem's width."""

    kernels: tuple[int, ...]
    expansion: int
    depths: tuple[int, int, int, int]
    stem_width: int


SIZES: dict[Size, Shape] = {
    "tiny": Shape((3, 3), 1, (1, 1, 1, 1), 32),
    "small": Shape((3, 3), 1, (2, 2, 2, 2), 64),
    "base": Shape((1, 3, 1), 4, (3, 4, 6, 3), 64),
}


@dataclass(frozen=True)
class Convolution:
    """One convolution and its norm; `reduction` is the edge of the image over the edge of the output."""

    kernel: int
    inside: int
    outside: int
    reduction: int


class ResNetConfig(EncoderSection):
    """Residual network (arXiv 1512.03385) with GroupNorm."""

    name: Literal["resnet"]
    size: Size = "small"

    @property
    def width(self) -> int:
        """See `EncoderSection`."""
        return self.convolutions()[-1].outside

    def parameters(self, data: DataSection) -> int:
        """See `EncoderSection`."""
        stem = SIZES[self.size].stem_width
        first = 3**data.dims * data.facts.channels * stem + 2 * stem
        rest = (
            one.kernel**data.dims * one.inside * one.outside + 2 * one.outside for one in self.convolutions()
        )
        return int(first + sum(rest))

    def tokens(self, data: DataSection) -> int:
        """See `EncoderSection`."""
        return -(-math.prod(data.view_size) // _VOXELS_A_TOKEN)

    def patch_values(self, data: DataSection) -> int:
        """See `EncoderSection`."""
        del data
        raise TypeError("a residual network has no patches")

    def kept_values(self, data: DataSection, seen: int | None = None, *, recomputed: bool = False) -> int:
        """See `EncoderSection`."""
        assert seen is None, "it sees the whole image"
        edges = data.view_size
        pooled = 2 if max(edges) >= POOL_FROM_SIZE else 1

        def values(reduction: int) -> int:
            return math.prod(math.ceil(edge / reduction) for edge in edges)

        kept = data.facts.channels * math.prod(edges) + _NORMED * SIZES[self.size].stem_width * values(2)
        blocks = [[one.outside * values(one.reduction * pooled) for one in block] for block in self.blocks()]
        if recomputed:
            return kept + sum(block[-1] for block in blocks) + _NORMED * max(map(sum, blocks))
        return kept + _NORMED * sum(map(sum, blocks))

    @property
    def layers(self) -> int:
        """See `EncoderSection`: the widest layers of a convolution are the first ones."""
        return 2

    def convolutions(self) -> list[Convolution]:
        """Return every convolution after the stem; the last one's width is the encoder's."""
        return list(itertools.chain(*self.blocks()))

    def blocks(self) -> list[list[Convolution]]:
        """Return the convolutions of each block, as `hilum.common.encoders.resnet` builds them; the stem halves once."""
        kernels, expansion, depths, stem = SIZES[self.size]
        blocks, inside, reduction = [], stem, 2
        for stage, depth in enumerate(depths):
            width = stem * 2**stage
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                outside, before = width * expansion, inside
                reduced = reduction * stride
                found = []
                for place, kernel in enumerate(kernels):
                    last = place == len(kernels) - 1
                    strided = kernel == max(kernels)  # the wider one has the stride; of two alike, the first
                    at = reduced if strided or last else reduction
                    found.append(Convolution(kernel, before, outside if last else width, at))
                    before = width
                if inside != outside or stride != 1:
                    found.append(Convolution(1, inside, outside, reduced))
                blocks.append(found)
                inside, reduction = outside, reduced
        return blocks
