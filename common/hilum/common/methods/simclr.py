"""SimCLR (arXiv 2002.05709): two views of one image attract, views of others repel.

Shapes: B batch, C channels, *S space, E embedding. The head has LayerNorm where the paper has BatchNorm: batch
statistics leak between sites' images and have no meaning as an average.
"""

import torch
from torch import Tensor, nn

from hilum.common.encoders import Encoder
from hilum.common.methods.base import MethodSpec, SSLMethod, ViewPlan
from hilum.common.methods.losses.nt_xent import nt_xent_loss


class SimCLR(SSLMethod):
    """An encoder that travels and a projection head that stays at the site."""

    spec = MethodSpec(
        name="simclr",
        paradigm="contrastive",
        dims=(2, 3),
        encoders=("vit", "resnet"),
        federated=("encoder",),
        local=("projector",),
        dp=False,
        dp_reason="NT-Xent compares each image with all others of the batch, so no per-sample gradient bounds "
        "what one patient adds; MAE can serve",
        views=ViewPlan(count=2, strength="strong"),
        paper="arXiv 2002.05709",
    )

    def __init__(self, encoder: Encoder, *, temperature: float, projection_width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature
        self.projector = nn.Sequential(
            nn.Linear(encoder.width, encoder.width),
            nn.LayerNorm(encoder.width),
            nn.ReLU(),
            nn.Linear(encoder.width, projection_width),
        )

    def draw(self, batch: int, rng: torch.Generator) -> Tensor:
        """(B, 0): the views hold all the randomness."""
        del rng
        return torch.zeros(batch, 0)

    def forward(self, views: Tensor, noise: Tensor) -> Tensor:
        """(B, 2, C, *S) -> (B,)."""
        del noise
        B = views.shape[0]
        projected = self.projector(self.encoder(torch.cat([views[:, 0], views[:, 1]])))
        return nt_xent_loss(projected[:B], projected[B:], self.temperature)

    def preview(self, views: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Return the two views of each image."""
        del noise
        return {"view 1": views[:, 0], "view 2": views[:, 1]}
