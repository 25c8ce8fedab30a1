"""Transformer blocks and fixed positions, shared by the ViT and the MAE's decoder.

Shapes: B batch, L tokens, E embedding. Biases everywhere, dropout nowhere: the same input gives the same output.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 32


class Attention(nn.Module):
    """Multi-head self-attention (arXiv 1706.03762) from plain Linear layers, so that Opacus can hook them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, L, E) -> (B, L, E), looking at the tokens that are `seen`, bool (B, L), or at all."""
        B, L, E = tokens.shape
        q, k, v = self.qkv(tokens).view(B, L, 3, self.heads, E // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=None if seen is None else seen[:, None, None, :]
        )
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(B, L, E))
        return out


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a four times wider MLP, each with a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, L, E) -> (B, L, E); see `Attention`."""
        tokens = tokens + self.attention(self.norm1(tokens), seen)
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


def sincos_positions(grid: tuple[int, ...], width: int, span: tuple[int, ...] | None = None) -> Tensor:
    """Return fixed sine and cosine positions for a 2D or 3D grid (arXiv 2111.06377, appendix A).

    Args:
        grid: Tokens along each axis; L is their product, in C order.
        width: E. Each axis takes an equal even share; what is left over is zero.
        span: The grid whose range the positions cover, so that a model of that one takes images of another size; the
            grid itself, if none.

    Returns:
        float32 (1, L, E).
    """
    half = width // (2 * len(grid))
    frequency = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10_000.0) / half))
    cells = torch.tensor(list(itertools.product(*map(range, grid))), dtype=torch.float64)
    if span is not None:  # the middles of the cells, on the other grid's scale
        scale = torch.tensor([a / b for a, b in zip(span, grid, strict=True)], dtype=torch.float64)
        cells = (cells + 0.5) * scale - 0.5
    angle = cells[:, :, None] * frequency
    waves = torch.cat([angle.sin(), angle.cos()], dim=2).flatten(1)
    return F.pad(waves, (0, width - waves.shape[1])).float()[None]
