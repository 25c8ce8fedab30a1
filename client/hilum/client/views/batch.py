"""From stored rows to the views of a batch, on the device.

Shapes: B batch, V views, C channels, *S space.

All random numbers come from one CPU generator, so a step gives the same views on every kind of device.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hilum.client.data.prepared import FULL_SCALE
from hilum.client.views import ct, mr, operations, radiograph
from hilum.client.views.recipe import Recipe
from hilum.common.config.study import DataSection
from hilum.common.methods import ViewPlan

_RECIPES = {
    ("radiograph", "crop"): radiograph.CROP,
    ("radiograph", "strong"): radiograph.STRONG,
    ("ct", "crop"): ct.CROP,
    ("ct", "strong"): ct.STRONG,
    ("mr", "crop"): mr.CROP,
    ("mr", "strong"): mr.STRONG,
}


def to_unit(rows: npt.NDArray[np.uint16], device: torch.device) -> Tensor:
    """Turn stored rows (B, C, *S) into float32 in [0, 1] on the device; two bytes a value cross over."""
    stored = torch.empty(rows.shape, dtype=torch.int16, pin_memory=device.type == "cuda")
    stored.copy_(torch.from_numpy(rows.view(np.int16)))
    moved = stored.to(device, non_blocking=True)
    return moved.to(torch.int32).bitwise_and(FULL_SCALE).float() / FULL_SCALE


class Viewer:
    """Makes the views that a method wants of a study's images."""

    def __init__(self, data: DataSection, plan: ViewPlan) -> None:
        self.data, self.plan = data, plan
        self.recipe: Recipe = _RECIPES[data.modality, plan.strength]

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """(B, C, *store) in [0, 1] -> (B, V, C, *image)."""
        return torch.stack([self._view(images, rng) for _ in range(self.plan.count)], dim=1)

    def whole(self, images: Tensor) -> Tensor:
        """(B, C, *store) -> (B, C, *image), the whole image, for evaluation."""
        size = [self.data.image_size] * self.data.dims
        if self.data.dims == 2:  # noqa: PLR2004 - dimensions, not a threshold
            return F.interpolate(images, size, mode="bilinear", antialias=True)
        return F.interpolate(images, size, mode="trilinear")

    def _view(self, images: Tensor, rng: torch.Generator) -> Tensor:
        B, recipe, size = images.shape[0], self.recipe, self.data.image_size

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            drawn = torch.rand(B, *shape, generator=rng) * (high - low) + low
            return drawn.to(images.device)

        scale = uniform(*recipe.area) ** (1 / self.data.dims)
        centre = uniform(-1, 1, self.data.dims)
        turn = math.radians(recipe.rotation_deg)
        out = operations.crop_and_rotate(images, scale, centre, uniform(-turn, turn), size)
        if recipe.gamma != (1.0, 1.0):
            low, high = map(math.log, recipe.gamma)
            out = operations.adjust_gamma(out, uniform(low, high).exp())
        if recipe.contrast != (1.0, 1.0):
            out = operations.adjust_contrast(out, uniform(*recipe.contrast))
        if recipe.bias_field:
            bound = recipe.bias_field
            out = operations.apply_bias_field(out, uniform(-bound, bound, 2 * self.data.dims))
        if recipe.blur:
            sigma_px = uniform(0, recipe.blur * size) * (uniform(0, 1) < recipe.blur_chance)
            out = operations.blur(out, sigma_px, radius=max(1, math.ceil(2 * recipe.blur * size)))
        if recipe.noise:
            grain = torch.randn(out.shape, generator=rng).to(images.device)
            deviation = uniform(0, recipe.noise).view(-1, *[1] * (out.ndim - 1))
            out = (out + grain * deviation).clamp(0, 1)
        return out
