"""From stored rows to the views of a batch, on the device.

Shapes: B batch, V views, C channels, *S space.

All random numbers come from one CPU generator, so a step gives the same views on every kind of device.
"""

import math
from dataclasses import replace
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hilum.client.data.intensity import FULL_SCALE
from hilum.client.views import ct, mr, operations, radiograph
from hilum.client.views.recipe import Recipe
from hilum.common.config.data import DataSection
from hilum.common.methods import Geometry, ViewPlan, Views

_RECIPES: dict[str, ModuleType] = {"radiograph": radiograph, "ct": ct, "mr": mr}
"""By modality, the file with its `CROP` and `STRONG`."""


def to_unit(rows: npt.NDArray[np.uint16], device: torch.device) -> Tensor:
    """Turn stored rows (B, C, *S) into float32 in [0, 1] on the device; two bytes a value cross over."""
    stored = torch.empty(rows.shape, dtype=torch.int16, pin_memory=device.type == "cuda")
    stored.copy_(torch.from_numpy(rows.view(np.int16)))
    moved = stored.to(device, non_blocking=True)
    return moved.to(torch.int32).bitwise_and(FULL_SCALE).float() / FULL_SCALE


class Viewer:
    """Makes the views that a method wants of a study's images."""

    def __init__(self, data: DataSection, plan: ViewPlan | None = None) -> None:
        self.data, self.plan = data, plan or ViewPlan({})
        modality = _RECIPES[data.modality]
        recipes: dict[str, Recipe] = {"crop": modality.CROP, "strong": modality.STRONG}
        self._recipes = {
            name: replace(recipes[group.strength], area=group.area or recipes[group.strength].area)
            for name, group in self.plan.groups.items()
        }

    def __call__(self, images: Tensor, rng: torch.Generator) -> Views:
        """(B, C, *store) in [0, 1] -> the groups of the plan, and what else it wants."""
        groups, geometry = {}, {}
        for name, group in self.plan.groups.items():
            size = tuple(round(edge * group.edge) for edge in self.data.view_size)
            made = [self._view(images, self._recipes[name], size, rng) for _ in range(group.count)]
            groups[name] = torch.stack([view for view, _ in made], dim=1)
            if self.plan.geometry:
                geometry[name] = Geometry(
                    *(torch.stack(one, dim=1) for one in zip(*(g for _, g in made), strict=True))
                )
        return Views(groups, geometry, self.whole(images) if self.plan.clean else None)

    def one(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """(B, C, *store) -> (B, C, *image): one mild view of each, as supervised training takes it."""
        crop = _RECIPES[self.data.modality].CROP
        return self._view(images, crop, self.data.view_size, rng)[0]

    def whole(self, images: Tensor) -> Tensor:
        """(B, C, *store) -> (B, C, *image), the whole image, for evaluation."""
        size = list(self.data.view_size)
        if self.data.dims == 2:  # noqa: PLR2004 - dimensions, not a threshold
            return F.interpolate(images, size, mode="bilinear", antialias=True)
        return F.interpolate(images, size, mode="trilinear")

    def _view(
        self, images: Tensor, recipe: Recipe, size: tuple[int, ...], rng: torch.Generator
    ) -> tuple[Tensor, Geometry]:
        B = images.shape[0]

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            drawn = torch.rand(B, *shape, generator=rng) * (high - low) + low
            return drawn.to(images.device)

        scale = uniform(*recipe.area) ** (1 / self.data.dims)
        centre = uniform(-1, 1, self.data.dims)
        turn = math.radians(recipe.rotation_deg)
        angle = uniform(-turn, turn)
        out = operations.crop_and_rotate(images, scale, centre, angle, size)
        if recipe.gamma != (1.0, 1.0):
            low, high = map(math.log, recipe.gamma)
            out = operations.adjust_gamma(out, uniform(low, high).exp())
        if recipe.contrast != (1.0, 1.0):
            out = operations.adjust_contrast(out, uniform(*recipe.contrast))
        if recipe.bias_field:
            bound = recipe.bias_field
            out = operations.apply_bias_field(out, uniform(-bound, bound, 2 * self.data.dims))
        if recipe.blur:
            widest_px = recipe.blur * max(size)
            sigma_px = uniform(0, widest_px) * (uniform(0, 1) < recipe.blur_chance)
            out = operations.blur(out, sigma_px, radius=max(1, math.ceil(2 * widest_px)))
        if recipe.noise:
            grain = torch.randn(out.shape, generator=rng).to(images.device)
            deviation = uniform(0, recipe.noise).view(-1, *[1] * (out.ndim - 1))
            out = (out + grain * deviation).clamp(0, 1)
        return out, Geometry(scale, centre, angle)
