"""Normalised temperature-scaled cross entropy (SimCLR, arXiv 2002.05709, equation 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the loss of each pair; every other image of the batch is a negative, so the batch is coupled.

    Args:
        first: (B, E), projections of one view of each image, B at least 2.
        second: (B, E), of the other view.
        temperature: Above 0.

    Returns:
        (B,), the mean of a pair's two anchors.
    """
    B = first.shape[0]
    both = F.normalize(torch.cat([first, second]).float(), dim=1)
    similarity = both @ both.T / temperature
    itself = torch.eye(2 * B, dtype=torch.bool, device=both.device)
    similarity = similarity.masked_fill(itself, float("-inf"))
    partner = torch.arange(2 * B, device=both.device).roll(B)
    anchors = F.cross_entropy(similarity, partner, reduction="none")
    return (anchors[:B] + anchors[B:]) / 2
