"""Batches as methods take them."""

from torch import Tensor

from hilum.common.methods import Views


def views_of(images: Tensor) -> Views:
    """(B, V, C, *S) -> the one group of views of MAE and SimCLR."""
    return Views({"image": images}, {}, None)
