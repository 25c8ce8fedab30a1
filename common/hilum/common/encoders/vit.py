"""Vision transformer (arXiv 2010.11929), 2D and 3D, pooled by the mean, without a class token.

Shapes: B batch, C channels, *S space, L tokens, P values in one patch, E embedding.

Positions are a fixed buffer and the patch embedding is a Linear layer on cut-out patches: all weights lie in layers
whose per-sample gradients Opacus can take, and a masked autoencoder can drop patches before any of the work.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hilum.common.config.data import DataSection
from hilum.common.config.encoders.vit import SIZES, VitConfig
from hilum.common.encoders.base import Encoder, check_images, check_mask
from hilum.common.encoders.masking import seen_of, shown
from hilum.common.encoders.transformer import Block, sincos_positions


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images into patches.

    Args:
        images: (B, C, *S), each edge a multiple of `patch`.
        patch: Edge of a patch.

    Returns:
        (B, L, P), patches in C order, the values of one patch ordered as (*patch, C).
    """
    B, C, *space = images.shape
    split = [part for edge in space for part in (edge // patch, patch)]
    cut = images.reshape(B, C, *split)
    grid_axes = [2 + 2 * axis for axis in range(len(space))]
    inner_axes = [axis + 1 for axis in grid_axes]
    cut = cut.permute(0, *grid_axes, *inner_axes, 1)
    return cut.reshape(B, math.prod(edge // patch for edge in space), patch ** len(space) * C)


def unpatchify(patches: Tensor, patch: int, space: tuple[int, ...]) -> Tensor:
    """Put patches (B, L, P) back together to (B, C, *S): the inverse of `patchify`."""
    B, _, P = patches.shape
    dims = len(space)
    C = P // patch**dims
    grid = [edge // patch for edge in space]
    whole = patches.reshape(B, *grid, *[patch] * dims, C)
    pairs = [
        axis for pair in zip(range(1, dims + 1), range(dims + 1, 2 * dims + 1), strict=True) for axis in pair
    ]
    return whole.permute(0, 2 * dims + 1, *pairs).reshape(B, C, *space)


class ViT(Encoder):
    """A plain ViT.

    Args:
        dims: 2 or 3.
        image_size: Edge of the images, or each edge.
        patch_size: Edge of a patch; divides each edge of the images.
        width: E, a multiple of `heads`.
        depth: Blocks.
        heads: Attention heads.
        channels: C.
    """

    def __init__(
        self,
        *,
        dims: int,
        image_size: int | tuple[int, ...],
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.dims, self.width, self.patch_size, self.channels = dims, width, patch_size, channels
        self.strides, self.widths = (patch_size,), (width,)
        self.space = image_size if isinstance(image_size, tuple) else (image_size,) * dims
        self.grid = tuple(edge // patch_size for edge in self.space)
        self.patch_embed = nn.Linear(patch_size**dims * channels, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(self.grid, width), persistent=False)

    @classmethod
    def of(cls, config: VitConfig, data: DataSection) -> "ViT":
        """Return the network of a study's section."""
        width, depth, heads = SIZES[config.size]
        return cls(
            dims=data.dims,
            image_size=data.view_size,
            patch_size=config.patch_size,
            width=width,
            depth=depth,
            heads=heads,
        )

    @property
    def tokens(self) -> int:
        """L, the number of patches in one image."""
        return math.prod(self.grid)

    def embed(self, patches: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """(B, L, P) -> (B, L, E) with positions; of a grid other than the encoder's own, they span the same range."""
        positions = self.positions
        if grid is not None and grid != self.grid:
            positions = sincos_positions(grid, self.width, span=self.grid).to(positions)
        embedded: Tensor = self.patch_embed(patches) + positions
        return embedded

    def encode(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, any number of tokens, E) -> the same shape; of tokens that are not `seen` (B, L) none takes notice."""
        for block in self.blocks:
            tokens = block(tokens, seen)
        encoded: Tensor = self.norm(tokens)
        return encoded

    def architecture(self) -> dict[str, Any]:
        """Return depth, heads, order of pixels, positions, norms and pooling."""
        first = self.blocks[0]
        assert isinstance(first, Block)
        return {
            "kind": "vit",
            "dims": self.dims,
            "channels": self.channels,
            "image_size": self.space[0] if len(set(self.space)) == 1 else list(self.space),
            "patch_size": self.patch_size,
            "grid": list(self.grid),
            "patches": "in C order over the grid; the values of one patch in C order, channel last",
            "patch_embed": "linear, with bias",
            "positions": "sincos: fixed, added to the embedded patches, in no tensor. Each of the `dims` axes has a share of "
            "width // (2 * dims) frequencies 10000 ** (-k / share), k from 0; a token's vector is, axis after axis, the sines "
            "then the cosines of its place on the axis times the frequencies; what is left over is zero",
            "class_token": False,
            "width": self.width,
            "depth": len(self.blocks),
            "heads": first.attention.heads,
            "attention": "qkv is one linear: queries, keys, values, each as (heads, width / heads); scaled by its root; `out` "
            "after it; all with bias",
            "mlp": "linear, GELU (exact, by erf), linear; four times as wide, with bias",
            "norm": "LayerNorm, eps 1e-6, before attention (norm1) and MLP (norm2), each with a residual, and at the end (norm)",
            "dropout": 0.0,
            "pooling": "mean over all tokens",
        }

    def feature_maps(self, images: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Return one map (B, E, *grid); see `Encoder`."""
        check_images(images, self.dims)
        if any(edge % self.patch_size for edge in images.shape[2:]):
            raise ValueError(
                f"expected images whose edges are multiples of {self.patch_size}, found {tuple(images.shape[2:])}"
            )
        grid = tuple(edge // self.patch_size for edge in images.shape[2:])
        seen = None
        if mask is not None:
            check_mask(mask, images, grid)
            images = shown(images, seen_of(mask, images))
            seen = mask.flatten(1) == 0
        tokens = self.encode(self.embed(patchify(images, self.patch_size), grid), seen)
        if seen is not None:
            tokens = tokens * seen[:, :, None]
        return [tokens.transpose(1, 2).reshape(len(images), self.width, *grid)]


def keep_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by index: (B, L, E) and (B, K) -> (B, K, E)."""
    return torch.gather(tokens, 1, index[:, :, None].expand(-1, -1, tokens.shape[2]))
