"""SimCLR (arXiv 2002.05709): two views of one image attract, views of others repel.

Shapes: B batch, C channels, *S space, E embedding. The head has LayerNorm where the paper has BatchNorm: batch
statistics leak between sites' images and have no meaning as an average.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilum.common.config.methods import SimclrConfig
from hilum.common.encoders import Encoder
from hilum.common.methods.base import (
    Loss,
    MethodSpec,
    Parts,
    RandomNumbers,
    SSLMethod,
    ViewGroup,
    ViewPlan,
    Views,
)
from hilum.common.methods.losses.gathered import gather_rows, own_rows
from hilum.common.methods.losses.nt_xent import nt_xent_loss


class SimCLR(SSLMethod):
    """An encoder that travels and a projection head that stays at the site."""

    spec = MethodSpec(
        name="simclr",
        paradigm="contrastive",
        dims=(2, 3),
        parts=Parts(federated=("encoder.*",), local=("projector.*",)),
        dp=False,
        dp_reason="NT-Xent compares each image with all others of the batch, so no per-sample gradient bounds "
        "what one patient adds; MAE can serve",
        views=ViewPlan({"image": ViewGroup(2, "strong")}),
        paper="arXiv 2002.05709",
        config=SimclrConfig,
    )

    def __init__(self, encoder: Encoder, config: SimclrConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature = config.temperature
        self.projector = nn.Sequential(
            nn.Linear(encoder.width, encoder.width),
            nn.LayerNorm(encoder.width),
            nn.ReLU(),
            nn.Linear(encoder.width, config.projection_width),
        )

    def draw(self, batch: int, rng: torch.Generator) -> RandomNumbers:
        """Return nothing: the views hold all the randomness."""
        del batch, rng
        return {}

    def forward(self, views: Views, numbers: RandomNumbers) -> Loss:
        """Return the loss of each pair, and how near its two views are on average, in [-1, 1]."""
        del numbers
        images = views.groups["image"]
        B = images.shape[0]
        projected = self.projector(self.encoder(torch.cat([images[:, 0], images[:, 1]])))
        first, second = projected[:B], projected[B:]
        with torch.no_grad():
            alignment = F.cosine_similarity(first.float(), second.float()).mean()
        # Of several processes each compares its images with those of all.
        total = B if views.patients is None else len(views.patients)
        one, other = gather_rows(torch.cat([first, second], dim=1), total).chunk(2, dim=1)
        loss = own_rows(nt_xent_loss(one, other, self.temperature, views.patients))
        return Loss(loss, {}, {"alignment": alignment})

    def preview(self, views: Views, numbers: RandomNumbers) -> dict[str, Tensor]:
        """Return the two views of each image."""
        del numbers
        images = views.groups["image"]
        return {"view 1": images[:, 0], "view 2": images[:, 1]}
