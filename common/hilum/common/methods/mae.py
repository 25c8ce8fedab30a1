"""Masked autoencoder (arXiv 2111.06377), 2D and 3D.

Shapes: B batch, C channels, *S space, L patches, K visible patches, P values in a patch, E and D the widths of
encoder and decoder. In a mask, 1 means removed.
"""

import torch
from torch import Tensor, nn

from hilum.common.config.methods import MaeConfig
from hilum.common.encoders.blocks import Blocks
from hilum.common.encoders.transformer import HEAD_WIDTH, Block, sincos_positions
from hilum.common.encoders.vit import ViT, keep_tokens, patchify, unpatchify
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
from hilum.common.methods.losses.masked_pixels import masked_pixel_loss, normalise_patches


class MaeDecoder(nn.Module):
    """A small transformer that predicts every patch from the visible ones."""

    def __init__(self, encoder: ViT, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder.width, width)
        # An Embedding rather than a bare parameter: per-sample gradients are taken by layer.
        self.mask_token = nn.Embedding(1, width)
        self.blocks = Blocks(Block(width, width // HEAD_WIDTH) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predict = nn.Linear(width, encoder.patch_embed.in_features)
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(encoder.grid, width), persistent=False)

    def forward(self, visible: Tensor, restore: Tensor) -> Tensor:
        """Decode encoded visible patches (B, K, E) and each patch's place in the shuffle (B, L) -> (B, L, P)."""
        B, K, _ = visible.shape
        removed = restore.new_zeros((B, restore.shape[1] - K))
        tokens = torch.cat([self.embed(visible), self.mask_token(removed)], dim=1)
        tokens = keep_tokens(tokens, restore) + self.positions
        predicted: Tensor = self.predict(self.norm(self.blocks(tokens)))
        return predicted


class MAE(SSLMethod):
    """Encode a random quarter of the patches, predict the normalised pixels of the others."""

    spec = MethodSpec(
        name="mae",
        paradigm="generative",
        dims=(2, 3),
        parts=Parts(federated=("encoder.*", "decoder.*")),
        dp=True,
        dp_reason="the loss of an image depends on that image alone",
        views=ViewPlan({"image": ViewGroup(1, "crop")}),
        paper="arXiv 2111.06377",
        config=MaeConfig,
    )

    def __init__(self, encoder: ViT, config: MaeConfig) -> None:
        super().__init__()
        self.share_decoder = config.share_decoder
        self.encoder: ViT = encoder
        self.decoder = MaeDecoder(encoder, *config.decoder(encoder.width))
        self.kept = config.kept_patches(encoder.tokens)

    @property
    def parts(self) -> Parts:
        """The decoder stays at the site where the study does not share it."""
        return self.spec.parts if self.share_decoder else Parts(("encoder.*",), local=("decoder.*",))

    def draw(self, batch: int, rng: torch.Generator) -> RandomNumbers:
        """Return `order`, uniform (B, L): the patches with the smallest numbers stay."""
        return {"order": torch.rand(batch, self.encoder.tokens, generator=rng, device=rng.device)}

    def reconstruct(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, C, *S), order (B, L) -> prediction (B, L, P), patches (B, L, P), mask (B, L)."""
        patches = patchify(images, self.encoder.patch_size)
        shuffle = order.argsort(dim=1, stable=True)
        restore = shuffle.argsort(dim=1, stable=True)
        visible = keep_tokens(self.encoder.embed(patches), shuffle[:, : self.kept])
        predicted = self.decoder(self.encoder.encode(visible), restore)
        mask = (restore >= self.kept).to(patches.dtype)
        return predicted, patches, mask

    def forward(self, views: Views, numbers: RandomNumbers) -> Loss:
        """Return the error on the removed patches."""
        predicted, patches, mask = self.reconstruct(views.groups["image"][:, 0], numbers["order"])
        return Loss(masked_pixel_loss(predicted.float(), normalise_patches(patches), mask), {}, {})

    @torch.no_grad()
    def preview(self, views: Views, numbers: RandomNumbers) -> dict[str, Tensor]:
        """Return the image, what the encoder saw, and the prediction in the removed patches.

        The target is normalised by patch, so each predicted patch is shown with its true mean and contrast.
        """
        images = views.groups["image"][:, 0]
        predicted, patches, mask = self.reconstruct(images, numbers["order"])
        mean, deviation = patches.mean(2, keepdim=True), patches.std(2, keepdim=True)
        removed = mask[:, :, None]
        seen = patches * (1 - removed) + 0.5 * removed
        filled = patches * (1 - removed) + (predicted * deviation + mean) * removed
        space = tuple(images.shape[2:])

        def picture(tokens: Tensor) -> Tensor:
            return unpatchify(tokens, self.encoder.patch_size, space).clamp(0, 1)

        return {"image": images, "what the encoder saw": picture(seen), "reconstruction": picture(filled)}
