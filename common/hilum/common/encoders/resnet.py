"""Residual networks (arXiv 1512.03385), 2D and 3D, with GroupNorm (arXiv 1803.08494) in place of batch statistics.

Shapes: B batch, C channels, *S space, E embedding. No operation is in place, so that every way of taking per-sample
gradients works.
"""

import itertools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hilum.common.config.data import DataSection
from hilum.common.config.encoders.resnet import POOL_FROM_SIZE, SIZES, ResNetConfig
from hilum.common.encoders.base import AS_IT_IS, Encoder, Scale, check_images, check_mask
from hilum.common.encoders.blocks import Blocks
from hilum.common.encoders.masking import normed, seen_of, shown

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
_GROUP_WIDTH = 16


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // _GROUP_WIDTH), channels)


class BasicBlock(nn.Module):
    """Two 3-wide convolutions and a residual (ResNet-18, -34)."""

    expansion = 1

    def __init__(self, dims: int, inside: int, width: int, stride: int) -> None:
        super().__init__()
        conv = _CONV[dims]
        self.conv1 = conv(inside, width, 3, stride, 1, bias=False)
        self.norm1 = _norm(width)
        self.conv2 = conv(width, width, 3, 1, 1, bias=False)
        self.norm2 = _norm(width)
        self.shortcut = Shortcut(dims, inside, width, stride)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, inside, *S) -> (B, width, *S / stride)."""
        out = F.relu(normed(self.norm1, self.conv1(x), seen))
        out = normed(self.norm2, self.conv2(out), seen)
        return F.relu(out + self.shortcut(x, seen))


class Bottleneck(nn.Module):
    """1-3-1-wide convolutions and a residual (ResNet-50)."""

    expansion = 4

    def __init__(self, dims: int, inside: int, width: int, stride: int) -> None:
        super().__init__()
        conv = _CONV[dims]
        self.conv1 = conv(inside, width, 1, bias=False)
        self.norm1 = _norm(width)
        self.conv2 = conv(width, width, 3, stride, 1, bias=False)
        self.norm2 = _norm(width)
        self.conv3 = conv(width, width * self.expansion, 1, bias=False)
        self.norm3 = _norm(width * self.expansion)
        self.shortcut = Shortcut(dims, inside, width * self.expansion, stride)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, inside, *S) -> (B, 4 * width, *S / stride)."""
        out = F.relu(normed(self.norm1, self.conv1(x), seen))
        out = F.relu(normed(self.norm2, self.conv2(out), seen))
        out = normed(self.norm3, self.conv3(out), seen)
        return F.relu(out + self.shortcut(x, seen))


class Shortcut(nn.Sequential):
    """The way around a block: nothing, or a convolution of 1 and a norm where shapes differ."""

    def __init__(self, dims: int, inside: int, outside: int, stride: int) -> None:
        same = inside == outside and stride == 1
        super().__init__(
            *([] if same else [_CONV[dims](inside, outside, 1, stride, bias=False), _norm(outside)])
        )

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, inside, *S) -> (B, outside, *S / stride)."""
        if not len(self):
            return x
        convolution, norm = self
        assert isinstance(norm, nn.GroupNorm)
        return normed(norm, convolution(x), seen)


class ResNet(Encoder):
    """A residual network.

    Args:
        dims: 2 or 3.
        image_size: Edge of the images, or each edge; from a longest one of 96 on, the stem halves the resolution twice.
        block: `BasicBlock` or `Bottleneck`.
        depths: Blocks in each of the four stages.
        stem_width: Channels of the first stage.
        channels: C.
        scale: What happens to values first.
    """

    before_blocks = ("stem", "stem_norm")

    def __init__(
        self,
        *,
        dims: int,
        image_size: int | tuple[int, ...],
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        stem_width: int,
        channels: int = 1,
        scale: Scale = AS_IT_IS,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.dims, self.block, self.depths = dims, block, depths
        self.space = image_size if isinstance(image_size, tuple) else (image_size,) * dims
        self.pool_stem = max(self.space) >= POOL_FROM_SIZE
        self.stem = _CONV[dims](channels, stem_width, 3, 2, 1, bias=False)
        self.stem_norm = _norm(stem_width)
        blocks, inside = [], stem_width
        for stage, depth in enumerate(depths):
            width = stem_width * 2**stage
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(dims, inside, width, stride))
                inside = width * block.expansion
        self.stages = Blocks(blocks)
        self.width = inside
        self.widths = tuple(stem_width * block.expansion * 2**stage for stage in range(len(depths)))
        first = 4 if self.pool_stem else 2
        self.strides = tuple(first * 2**stage for stage in range(len(depths)))

    @classmethod
    def of(cls, config: ResNetConfig, data: DataSection) -> "ResNet":
        """Return the network of a study's section."""
        shape = SIZES[config.size]
        return cls(
            dims=data.dims,
            image_size=data.view_size,
            block=BasicBlock if shape.expansion == BasicBlock.expansion else Bottleneck,
            depths=shape.depths,
            stem_width=shape.stem_width,
            scale=Scale.of(data),
            channels=data.facts.channels,
        )

    def architecture(self) -> dict[str, Any]:
        """Return depths, widths, strides, norms and pooling."""
        return {
            "kind": "resnet",
            "dims": self.dims,
            "channels": self.stem.in_channels,
            "image_size": self.space[0] if len(set(self.space)) == 1 else list(self.space),
            "standardised": {"first": "(value - mean) / deviation", **self.scale.architecture()},
            "block": "two convolutions of 3"
            if self.block is BasicBlock
            else "convolutions of 1, 3 and 1, four times as wide",
            "depths": list(self.depths),
            "stem_width": self.stem.out_channels,
            "stem": "convolution of 3, stride 2, padding 1, no bias; norm; ReLU"
            + ("; max pooling of 3, stride 2, padding 1" if self.pool_stem else ""),
            "stages": "one list of blocks; each stage but the first begins with stride 2 (in the convolution of 3) and twice "
            "the width; all convolutions without bias, padding 1 where they are 3 wide",
            "shortcut": "identity, or a convolution of 1 with the block's stride and a norm where shapes differ",
            "norm": f"GroupNorm, one group for {_GROUP_WIDTH} channels, eps 1e-5",
            "activation": "ReLU, also after the residual",
            "width": self.width,
            "pooling": "mean over the feature map",
        }

    def feature_maps(self, images: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Return a map for each of the four stages, at 1/2 to 1/16 of the image, or 1/4 to 1/32; see `Encoder`."""
        check_images(images, self.dims)
        if mask is not None:
            check_mask(mask, images, tuple(-(-edge // self.strides[-1]) for edge in images.shape[2:]))
        seen = seen_of(mask, images)
        x = F.relu(normed(self.stem_norm, self.stem(shown(self.scale(images), seen)), seen))
        if self.pool_stem:
            x = shown(_POOL[self.dims](x, 3, 2, 1), seen)
        maps, ends = [], list(itertools.accumulate(self.depths))
        for number, output in enumerate(self.stages.outputs(x, seen), 1):
            if number in ends:
                maps.append(output)
        return maps
