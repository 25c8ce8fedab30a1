"""Normalised temperature-scaled cross entropy (SimCLR, arXiv 2002.05709, equation 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent_loss(first: Tensor, second: Tensor, temperature: float, patients: Tensor | None = None) -> Tensor:
    """Return the loss of each pair; every image of another patient in the batch is a negative, so the batch is coupled.

    In single precision, whatever autocast says: divided by a low temperature, bf16 is off by more than the gradient.

    Args:
        first: (B, E), projections of one view of each image, B at least 2.
        second: (B, E), of the other view.
        temperature: Above 0.
        patients: (B,) patient numbers; two images of one patient show the same body and are no negatives. None takes
            every image for a patient of its own.

    Returns:
        (B,), the mean of a pair's two anchors.
    """
    B = first.shape[0]
    with torch.autocast(first.device.type, enabled=False):
        both = F.normalize(torch.cat([first, second]).float(), dim=1)
        similarity = both @ both.T / temperature
        partner = torch.arange(2 * B, device=both.device).roll(B)
        if patients is None:
            left_out = torch.eye(2 * B, dtype=torch.bool, device=both.device)
        else:
            twice = patients.repeat(2)
            left_out = (twice[:, None] == twice).scatter(1, partner[:, None], False)
        anchors = F.cross_entropy(similarity.masked_fill(left_out, float("-inf")), partner, reduction="none")
    return (anchors[:B] + anchors[B:]) / 2
