"""A decoder for dense tasks: from an encoder's feature maps, and the image itself, to scores of each pixel or voxel.

Shapes: B batch, C channels of the image, *S its space, *G the grid of a feature map, K outputs.

One form for all encoders. Of a pyramid (ResNet) it is a U-Net's decoder (arXiv 1505.04597); of one coarse map (ViT) it goes up
step by step. Levels that are finer than the encoder's finest map take the image instead, as UNETR does (arXiv 2103.10504): the
edges of structures are in no token of 8 or 16 pixels. Norms are group norms (arXiv 1803.08494), and nothing depends on the
batch. Blocks are MONAI's.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilum.common.encoders import Encoder
from hilum.common.encoders.base import initialise

_GROUPS = 8
_FINEST = 16  # channels where the image has its full size, twice as many at each coarser level
_MAX_WIDTH = 256
_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


class Decoder(nn.Module):
    """Goes from the coarsest map to the image's own size, with a skip connection at each level.

    Args:
        encoder: Whose maps it takes.
        channels: C.
        outputs: K.
        rng: Gives the first values. The last layer has some too: from zero, it learned nothing but a constant.
    """

    def __init__(self, encoder: Encoder, channels: int, outputs: int, rng: torch.Generator) -> None:
        super().__init__()
        from monai.networks.blocks.dynunet_block import UnetBasicBlock  # MONAI takes seconds to come in

        self.dims = encoder.dims
        self.strides = finer_strides(encoder.strides[0])
        fine = [min(_MAX_WIDTH, _FINEST * 2**level) for level in range(len(self.strides))]
        coarse = [min(_MAX_WIDTH, max(_GROUPS, width - width % _GROUPS)) for width in encoder.widths]
        widths = [*fine, *coarse]
        norm = ("group", {"num_groups": _GROUPS})
        conv = _CONV[self.dims]

        def block(inside: int, outside: int) -> nn.Module:
            return UnetBasicBlock(self.dims, inside, outside, kernel_size=3, stride=1, norm_name=norm)

        self.from_image = nn.ModuleList(conv(channels, width, 3, padding=1) for width in fine)
        self.from_maps = nn.ModuleList(
            conv(inside, width, 1) for inside, width in zip(encoder.widths, coarse, strict=True)
        )
        pairs = list(itertools.pairwise(widths))
        self.narrow = nn.ModuleList(conv(coarser, finer, 1) for finer, coarser in pairs)
        self.blocks = nn.ModuleList(block(2 * finer, finer) for finer, _ in pairs)
        self.outputs = conv(widths[0], outputs, 1)
        initialise(self, rng)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return scores (B, K, *S) from the image (B, C, *S) and the encoder's maps (B, width, *G), from fine to coarse."""
        image, *maps = maps
        skips = [
            layer(_pooled(image, stride)) for layer, stride in zip(self.from_image, self.strides, strict=True)
        ]
        skips += [layer(one) for layer, one in zip(self.from_maps, maps, strict=True)]
        x = skips.pop()
        for narrow, block, skip in zip(
            reversed(self.narrow), reversed(self.blocks), reversed(skips), strict=True
        ):
            wide = F.interpolate(narrow(x), skip.shape[2:], mode=_LINEAR[self.dims])
            x = block(torch.cat([wide, skip], dim=1))
        scores: Tensor = self.outputs(x)
        return scores


def finer_strides(first: int) -> tuple[int, ...]:
    """Return the levels above an encoder's finest map: 1, 2, 4 and so on, below its stride."""
    strides, stride = [], 1
    while stride < first:
        strides.append(stride)
        stride *= 2
    return tuple(strides)


def _pooled(image: Tensor, stride: int) -> Tensor:
    if stride == 1:
        return image
    return F.interpolate(image, [-(-edge // stride) for edge in image.shape[2:]], mode="area")
