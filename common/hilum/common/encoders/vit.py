"""Vision transformer (arXiv 2010.11929), 2D and 3D, pooled by the mean, without a class token.

Shapes: B batch, C channels, *S space, L tokens, P values in one patch, E embedding.

Positions are a fixed buffer, or an Embedding, and the patch embedding is a Linear layer on cut-out patches: all weights
lie in layers whose per-sample gradients Opacus can take, and a masked autoencoder can drop patches before any of the work.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilum.common.config.data import DataSection
from hilum.common.config.encoders.vit import SIZES, VitConfig
from hilum.common.encoders.base import AS_IT_IS, Encoder, Scale, check_images, check_mask
from hilum.common.encoders.blocks import Blocks
from hilum.common.encoders.masking import seen_of, shown
from hilum.common.encoders.transformer import Block, sincos_positions

_SINCOS = (
    "sincos: fixed, added to the embedded patches, in no tensor. Each of the `dims` axes has a share of "
    "width // (2 * dims) frequencies 10000 ** (-k / share), k from 0; a token's vector is, axis after axis, the sines "
    "then the cosines of its place on the axis times the frequencies; what is left over is zero"
)
_LEARNED = (
    "learned: the rows of position_table.weight, in C order over the grid, added to the embedded patches"
)


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
        scale: What happens to values first.
        learned_positions: Whether positions are a table that trains, and not computed.
    """

    before_blocks = ("patch_embed", "position_table")

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
        scale: Scale = AS_IT_IS,
        learned_positions: bool = False,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.dims, self.width, self.patch_size, self.channels = dims, width, patch_size, channels
        self.strides, self.widths = (patch_size,), (width,)
        self.space = image_size if isinstance(image_size, tuple) else (image_size,) * dims
        self.grid = tuple(edge // patch_size for edge in self.space)
        self.patch_embed = nn.Linear(patch_size**dims * channels, width)
        self.blocks = Blocks(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.position_table = nn.Embedding(self.tokens, width) if learned_positions else None
        self.positions: Tensor | None
        fixed = None if learned_positions else sincos_positions(self.grid, width)
        self.register_buffer("positions", fixed, persistent=False)

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
            scale=Scale.of(data),
            learned_positions=config.positions == "learned",
            channels=data.facts.channels,
        )

    @property
    def tokens(self) -> int:
        """L, the number of patches in one image."""
        return math.prod(self.grid)

    def embed(self, patches: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """(B, L, P) of values in [0, 1] -> (B, L, E) with positions; of a grid other than the encoder's own, they span the same range."""
        tokens: Tensor = self.patch_embed(self.scale(patches))
        if self.position_table is not None:
            # One row of places an image: that is how per-sample gradients are taken of an Embedding.
            places = torch.arange(self.tokens, device=tokens.device).expand(tokens.shape[0], -1)
            return tokens + resized_positions(self.position_table(places), self.grid, grid or self.grid)
        assert self.positions is not None
        if grid is not None and grid != self.grid:
            return tokens + sincos_positions(grid, self.width, span=self.grid).to(self.positions)
        return tokens + self.positions

    def encode(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, any number of tokens, E) -> the same shape; of tokens that are not `seen` (B, L) none takes notice."""
        encoded: Tensor = self.norm(self.blocks(tokens, seen))
        return encoded

    def residuals(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, L, E); see `Encoder`."""
        grid = tuple(edge // self.patch_size for edge in images.shape[2:])
        tokens: Tensor = self.blocks(self.embed(patchify(images, self.patch_size), grid))
        return tokens

    def pooled(self, residuals: Tensor) -> Tensor:
        """(B, L, E) -> (B, E); see `Encoder`."""
        normed: Tensor = self.norm(residuals)
        return normed.mean(1)

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
            "standardised": {"first": "(value - mean) / deviation", **self.scale.architecture()},
            "grid": list(self.grid),
            "patches": "in C order over the grid; the values of one patch in C order, channel last",
            "patch_embed": "linear, with bias",
            "positions": _SINCOS if self.position_table is None else _LEARNED,
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
        return [tokens.transpose(1, 2).reshape(images.shape[0], self.width, *grid)]


def resized_positions(table: Tensor, grid: tuple[int, ...], wanted: tuple[int, ...]) -> Tensor:
    """Bring learned positions to another grid, so that they span the same range: bicubic in 2D, trilinear in 3D.

    Args:
        table: (B, L, E), L the product of `grid`.
        grid: The grid it was learned on.
        wanted: The other grid.

    Returns:
        (B, product of `wanted`, E).
    """
    if grid == wanted:
        return table
    planes = table.transpose(1, 2).reshape(*table.shape[::2], *grid)
    mode = "bicubic" if len(grid) == 2 else "trilinear"  # noqa: PLR2004 - images
    return F.interpolate(planes, size=wanted, mode=mode).flatten(2).transpose(1, 2)


def keep_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by index: (B, L, E) and (B, K) -> (B, K, E)."""
    return torch.gather(tokens, 1, index[:, :, None].expand(-1, -1, tokens.shape[2]))
