"""Residual networks (arXiv 1512.03385), 2D and 3D, with GroupNorm (arXiv 1803.08494) in place of batch statistics.

Shapes: B batch, C channels, *S space, E embedding. No operation is in place, so that every way of taking per-sample
gradients works.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hilum.common.encoders.base import Encoder

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
_GROUP_WIDTH = 16
POOL_FROM_SIZE = 96  # smaller images keep their resolution after the stem


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
        self.shortcut = _shortcut(dims, inside, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, *S) -> (B, width, *S / stride)."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


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
        self.shortcut = _shortcut(dims, inside, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, *S) -> (B, 4 * width, *S / stride)."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = F.relu(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(out))
        return F.relu(out + self.shortcut(x))


def _shortcut(dims: int, inside: int, outside: int, stride: int) -> nn.Module:
    if inside == outside and stride == 1:
        return nn.Identity()
    return nn.Sequential(_CONV[dims](inside, outside, 1, stride, bias=False), _norm(outside))


class ResNet(Encoder):
    """A residual network.

    Args:
        dims: 2 or 3.
        image_size: Edge of the images; from 96 on, the stem halves the resolution twice.
        block: `BasicBlock` or `Bottleneck`.
        depths: Blocks in each of the four stages.
        stem_width: Channels of the first stage.
        channels: C.
    """

    def __init__(
        self,
        *,
        dims: int,
        image_size: int,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        stem_width: int,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.dims, self.image_size, self.block, self.depths = dims, image_size, block, depths
        self.pool_stem = image_size >= POOL_FROM_SIZE
        self.stem = _CONV[dims](channels, stem_width, 3, 2, 1, bias=False)
        self.stem_norm = _norm(stem_width)
        stages, inside = [], stem_width
        for stage, depth in enumerate(depths):
            width = stem_width * 2**stage
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                stages.append(block(dims, inside, width, stride))
                inside = width * block.expansion
        self.stages = nn.Sequential(*stages)
        self.width = inside

    def architecture(self) -> dict[str, Any]:
        """Return depths, widths, strides, norms and pooling."""
        return {
            "kind": "resnet",
            "dims": self.dims,
            "channels": self.stem.in_channels,
            "image_size": self.image_size,
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

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, E, *S / 16), or *S / 32 with a pooled stem."""
        x = F.relu(self.stem_norm(self.stem(images)))
        if self.pool_stem:
            x = _POOL[self.dims](x, 3, 2, 1)
        maps: Tensor = self.stages(x)
        return maps
