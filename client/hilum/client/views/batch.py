"""From stored rows to the views of a batch, on the device.

Shapes: B batch, V views, C channels, *S space.

All random numbers come from one generator, on the device that makes the views: nothing waits for a copy of them. torch's is counted
on a GPU (Philox), so that one seed gives the same numbers in each run on one kind of device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hilum.client.views import (
    angiogram,
    colour,
    ct,
    fundus,
    mammogram,
    mr,
    operations,
    pathology,
    pet,
    photograph,
    placement,
    radiograph,
    sound,
    ultrasound,
)
from hilum.client.views.recipe import Recipe
from hilum.common.config.data import DataSection
from hilum.common.config.views import ViewsSection
from hilum.common.methods import Geometry, ViewPlan, Views
from hilum.common.preparation.fitting import whole_view
from hilum.common.preparation.intensity import FULL_SCALE

_RECIPES: dict[str, ModuleType] = {
    "radiograph": radiograph,
    "mammogram": mammogram,
    "ct": ct,
    "mr": mr,
    "pet": pet,
    "ultrasound": ultrasound,
    "angiogram": angiogram,
    "photograph": photograph,
    "fundus": fundus,
    "pathology": pathology,
}
"""By modality, the file with its `CROP` and `STRONG`."""


def to_unit(rows: npt.NDArray[np.uint16], device: torch.device) -> Tensor:
    """Turn stored rows (B, C, *S) into float32 in [0, 1] on the device; two bytes a value cross over."""
    return unit_of(torch.from_numpy(rows.view(np.int16)).to(device))


def unit_of(stored: Tensor) -> Tensor:
    """Turn int16 that hold the bits of uint16 into float32 in [0, 1]."""
    return stored.to(torch.int32).bitwise_and_(FULL_SCALE).float().div_(FULL_SCALE)


def random_numbers(device: torch.device, seed: int) -> torch.Generator:
    """Return a generator on a device."""
    return torch.Generator(device).manual_seed(seed)


def recipes_of(modality: str, changes: ViewsSection) -> dict[str, Recipe]:
    """Return a modality's recipes by strength, with a study's ranges in place of its own."""
    found = {"crop": _RECIPES[modality].CROP, "strong": _RECIPES[modality].STRONG}
    given = {"crop": changes.crop, "strong": changes.strong}
    return {
        name: recipe if (ranges := given[name]) is None else replace(recipe, **ranges.given)
        for name, recipe in found.items()
    }


@dataclass(frozen=True)
class Share:
    """Which rows of a batch a process has: every so-manieth, from the one of its own number.

    Attributes:
        rank: Of the process.
        processes: How many there are.
        total: Rows of the whole batch; as many as there are here, if none.
    """

    rank: int = 0
    processes: int = 1
    total: int | None = None

    def whole(self, here: int) -> int:
        """Return the rows of the whole batch, where there are so many here."""
        return here if self.total is None else self.total

    def of(self, drawn: Tensor) -> Tensor:
        """Return this process's rows of what was drawn for all."""
        return drawn[self.rank :: self.processes]


ALL = Share()


class Viewer:
    """Makes the views that a method wants of a study's images.

    Args:
        data: Which images.
        plan: The method's.
        changes: What the study changes in the modality's recipes.
    """

    def __init__(
        self, data: DataSection, plan: ViewPlan | None = None, changes: ViewsSection | None = None
    ) -> None:
        self.data, self.plan = data, plan or ViewPlan({})
        recipes = recipes_of(data.modality, changes or ViewsSection())
        self._mild = recipes["crop"]
        self._recipes = {
            name: replace(recipes[group.strength], area=group.area or recipes[group.strength].area)
            for name, group in self.plan.groups.items()
        }

    def __call__(self, images: Tensor, rng: torch.Generator, share: Share = ALL) -> Views:
        """(B, C, *store) in [0, 1] -> the groups of the plan, and what else it wants.

        Args:
            images: Of a batch, or of this process's share of one.
            rng: Gives the numbers of the whole batch.
            share: Which of them the images are.
        """
        groups, geometry = {}, {}
        for name, group in self.plan.groups.items():
            size = tuple(round(edge * group.edge) for edge in self.data.view_size)
            made = [self._view(images, self._recipes[name], size, rng, share) for _ in range(group.count)]
            groups[name] = torch.stack([view for view, _ in made], dim=1)
            if self.plan.geometry:
                geometry[name] = Geometry(
                    *(torch.stack(one, dim=1) for one in zip(*(g for _, g in made), strict=True))
                )
        return Views(groups, geometry, self.whole(images) if self.plan.clean else None)

    def one(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """(B, C, *store) -> (B, C, *image): one mild view of each, as supervised training takes it."""
        return self._view(images, self._mild, self.data.view_size, rng)[0]

    def one_with_shares(self, images: Tensor, shares: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the same view of each as `one`, and what of the shares lies where it shows.

        Args:
            images: (B, C, *store) in [0, 1].
            shares: (B, K, *store), how much of each place each class has; taken along with the geometry alone.
            rng: Gives the numbers; the views are those of `one` with the same.

        Returns:
            (B, C, *image) and (B, K, *image).
        """
        view, (scale, centre, angle, mirrored) = self._view(images, self._mild, self.data.view_size, rng)
        along = operations.crop_and_rotate(shares, scale, centre, angle, self.data.view_size)
        wide = mirrored.view(-1, *[1] * (along.ndim - 1))
        return view, torch.where(wide, along.flip(-1), along)

    def whole(self, images: Tensor) -> Tensor:
        """(B, C, *store) -> (B, C, *image), the whole image, for evaluation."""
        return whole_view(images, self.data)

    def _view(
        self,
        images: Tensor,
        recipe: Recipe,
        size: tuple[int, ...],
        rng: torch.Generator,
        share: Share = ALL,
    ) -> tuple[Tensor, Geometry]:
        B = share.whole(len(images))

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            drawn = torch.rand(B, *shape, generator=rng, device=rng.device) * (high - low) + low
            return share.of(drawn).to(images.device)

        def normal(*shape: int) -> Tensor:
            return share.of(torch.randn(B, *shape, generator=rng, device=rng.device)).to(images.device)

        scale = uniform(*recipe.area) ** (1 / self.data.dims)
        place = uniform(0, 1) if recipe.tissue else None
        centre = uniform(-1, 1, self.data.dims) if place is None else None
        turn = math.radians(recipe.rotation_deg)
        angle, mirrored = _turned(uniform(-turn, turn), recipe, uniform)
        largest = operations.largest_scale(angle, images.shape[-2] / images.shape[-1])
        scale = torch.minimum(scale, largest)  # no corner outside the image
        if centre is None:
            assert place is not None, "drawn for the tissue"
            centre = placement.centre_on_tissue(images, scale / largest, place, recipe.tissue)
        out = operations.crop_and_rotate(images, scale, centre, angle, size)
        if recipe.horizontal_flip or recipe.vertical_flip:
            out = torch.where(mirrored.view(-1, *[1] * (out.ndim - 1)), out.flip(-1), out)
        if recipe.gamma != (1.0, 1.0):
            low, high = map(math.log, recipe.gamma)
            out = operations.adjust_gamma(out, uniform(low, high).exp())
        if recipe.contrast != (1.0, 1.0):
            out = operations.adjust_contrast(out, uniform(*recipe.contrast))
        out = _in_colour(out, recipe, uniform)
        if recipe.bias_field:
            bound = recipe.bias_field
            out = operations.apply_bias_field(out, uniform(-bound, bound, 2 * self.data.dims))
        out = _of_sound(out, recipe, uniform, normal)
        if recipe.blur:
            widest_px = recipe.blur * max(size)
            sigma_px = uniform(0, widest_px) * (uniform(0, 1) < recipe.blur_chance)
            out = operations.blur(out, sigma_px, radius=max(1, math.ceil(2 * widest_px)))
        if recipe.noise:
            grain = normal(*out.shape[1:])
            deviation = uniform(0, recipe.noise).view(-1, *[1] * (out.ndim - 1))
            out = (out + grain * deviation).clamp(0, 1)
        return out, Geometry(scale, centre, angle, mirrored)


def _turned(angle: Tensor, recipe: Recipe, uniform: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Add quarter turns and flips to the angles (B,); give them, and who is mirrored after the turn, (B,)."""
    mirrored = torch.zeros_like(angle, dtype=torch.bool)
    if recipe.quarter_turns:
        angle = angle + math.pi / 2 * uniform(0, 4).floor() * (uniform(0, 1) < recipe.quarter_turns)
    if recipe.horizontal_flip:
        mirrored = uniform(0, 1) < recipe.horizontal_flip
    if recipe.vertical_flip:  # turned over is half a turn, then mirrored
        over = uniform(0, 1) < recipe.vertical_flip
        angle, mirrored = angle + math.pi * over, mirrored ^ over
    return angle, mirrored


def _in_colour(images: Tensor, recipe: Recipe, uniform: Callable[..., Tensor]) -> Tensor:
    """Change the colours of images (B, 3, H, W), as far as the recipe does."""
    if recipe.saturation != (1.0, 1.0):
        images = colour.adjust_saturation(images, uniform(*recipe.saturation))
    if recipe.hue:
        images = colour.shift_hue(images, uniform(-recipe.hue, recipe.hue))
    if recipe.stain:
        factor = 1 + uniform(-recipe.stain, recipe.stain, 3)
        images = colour.adjust_stain(images, factor, uniform(-recipe.stain / 10, recipe.stain / 10, 3))
    return images


def _of_sound(
    images: Tensor, recipe: Recipe, uniform: Callable[..., Tensor], normal: Callable[..., Tensor]
) -> Tensor:
    """Change what is ultrasound's own in images (B, C, H, W), as far as the recipe does."""
    if recipe.depth_gain:
        images = sound.apply_depth_gain(images, uniform(-recipe.depth_gain, recipe.depth_gain, 2))
    if recipe.speckle:
        grain = normal(1, *images.shape[2:])
        images = sound.add_speckle(images, grain, uniform(0, recipe.speckle))
    return images
