"""Mean squared error on the masked patches (arXiv 2111.06377, section 3)."""

from torch import Tensor

_EPS = 1e-6


def normalise_patches(patches: Tensor) -> Tensor:
    """Bring each patch (B, L, P) to mean 0 and variance 1: the target that gave the better representation."""
    mean = patches.mean(dim=2, keepdim=True)
    variance = patches.var(dim=2, keepdim=True)
    return (patches - mean) / (variance + _EPS).sqrt()


def masked_pixel_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the error of each image on what the encoder did not see.

    Args:
        predicted: (B, L, P).
        target: (B, L, P).
        mask: (B, L), 1 where a patch was removed; at least one in each row.

    Returns:
        (B,).
    """
    error = (predicted - target).square().mean(dim=2)
    return (error * mask).sum(dim=1) / mask.sum(dim=1)
