"""Positions of a ViT from elsewhere: learned ones for a learned table, fixed ones where both compute the same.

Shapes: N rows of the file's table, those of tokens that are no patches first, L patches, E width.
"""

import torch
from torch import Tensor

from hilum.common.encoders.transformer import sincos_positions
from hilum.common.encoders.vit import ViT, resized_positions
from hilum.common.encoders.warm_start.conversion import Conversion

_TABLE = "position_table.weight"
_SAME = 2e-3  # more than half precision loses of a number below 1
_IN_ORDER = "features in the order of the study's positions"


def take_positions(out: Conversion, encoder: ViT, name: str, dims: int, others: int) -> None:
    """Take the positions of a file as far as the encoder has a place for them.

    Fixed positions differ between codes in the order of their axes: MAE has the columns' waves first (arXiv 2111.06377),
    this encoder the rows'. No layer of a transformer tells its features apart, so all of them are put into the other order:
    the network computes the same.

    Args:
        out: The work so far: all other tensors.
        encoder: The study's.
        name: The table's, (1, N, E) or (N, E).
        dims: Of the images that the table is for.
        others: How many tokens the file's network has beside the patches.
    """
    table = out.source.tensor(name).flatten(0, -2)
    found = _grid_of(len(table), dims, others)
    if found is None:
        out.leave(name, "its rows are no square grid")
        return
    grid, first = found
    patches = table[first:]
    if encoder.position_table is not None:
        _into_table(out, encoder, name, patches, grid)
        return
    fixed = sincos_positions(grid, encoder.width)[0]
    half = encoder.width // 2
    if dims < encoder.dims:
        out.leave(
            name, 'of a plane; encoder.positions = "sincos" computes those of a volume, "learned" takes these'
        )
    elif torch.allclose(patches, fixed, atol=_SAME):
        out.fold(name, None, "fixed, and computed alike by the study's network")
    elif dims == 2 and torch.allclose(patches, fixed.roll(half, 1), atol=_SAME):  # noqa: PLR2004 - images
        out.fold(name, None, "fixed, and computed by the study's network with the rows first")
        _put_in_order(out, torch.arange(encoder.width).roll(half))
    else:
        out.leave(name, 'learned; encoder.positions = "sincos" computes others, "learned" takes these')
        out.notes.append(
            'without its positions the network does not compute what it computed; encoder.positions = "learned" has a place '
            "for them"
        )


def _into_table(out: Conversion, encoder: ViT, name: str, patches: Tensor, grid: tuple[int, ...]) -> None:
    plane = encoder.grid[-len(grid) :]
    said = [] if plane == grid else [f"interpolated from {_by(grid)} to {_by(plane)}"]
    table = resized_positions(patches[None], grid, plane)[0]
    if len(grid) < encoder.dims:
        table = table.repeat(encoder.grid[0], 1)
        said.append("repeated at every depth")
    if len(patches) < out.source.shape(name)[-2]:
        said.append("those of patches alone")
    out.take(name, _TABLE, table, "; ".join(said))


def _grid_of(rows: int, dims: int, others: int) -> tuple[tuple[int, ...], int] | None:
    """Return the grid of a table and how many rows come before it."""
    for first in sorted({others, min(others, 1), 0}, reverse=True):
        edge = round((rows - first) ** (1 / dims)) if rows > first else 0
        if edge and edge**dims == rows - first:
            return (edge,) * dims, first
    return None


def _put_in_order(out: Conversion, order: Tensor) -> None:
    """Give all features of the stream between blocks another order: `order` holds each one's old place."""
    for target, tensor in list(out.tensors.items()):
        layer = target.split(".", 2)[-1] if target.startswith("blocks.") else target
        if layer in {"attention.qkv.weight", "mlp.0.weight"}:
            out.reform(target, tensor[:, order].contiguous(), _IN_ORDER)
        elif layer not in {"attention.qkv.bias", "mlp.0.bias"}:
            out.reform(target, tensor[order].contiguous(), _IN_ORDER)


def _by(grid: tuple[int, ...]) -> str:
    return " x ".join(map(str, grid))
