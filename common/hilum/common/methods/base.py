"""What a self-supervised method is to the rest of Hilum.

Shapes: B batch, V views of one image, C channels, *S space.

A method is a module whose parts are named: the federated parts travel, the local parts stay at the site. It takes
views and the random numbers that it needs as inputs, draws nothing itself, and gives one loss for each image. So a
step can be repeated bit for bit, and per-sample gradients can be taken of the module as it is.
"""

import abc
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hilum.common.encoders import Encoder


@dataclass(frozen=True)
class ViewPlan:
    """Which views a method wants of each image.

    Attributes:
        count: V.
        strength: `crop` is a crop and small rotation, as reconstruction wants; `strong` adds changes of intensity
            and blur, which two views of one image must disagree in.
    """

    count: int
    strength: Literal["crop", "strong"]


@dataclass(frozen=True)
class MethodSpec:
    """One entry of `hilum methods`.

    Attributes:
        federated: Names of the parts that travel.
        local: Names of the parts that stay at the site.
        dp: Whether patient-level DP-SGD can serve it.
        dp_reason: Why, or why not.
    """

    name: str
    paradigm: Literal["contrastive", "predictive", "generative", "hybrid"]
    dims: tuple[int, ...]
    encoders: tuple[str, ...]
    federated: tuple[str, ...]
    local: tuple[str, ...]
    dp: bool
    dp_reason: str
    views: ViewPlan
    paper: str


class SSLMethod(nn.Module, abc.ABC):
    """A pretext task around an encoder."""

    spec: MethodSpec
    encoder: Encoder

    @property
    def federated(self) -> tuple[str, ...]:
        """Names of the parts that travel in this study; `spec.federated` unless the study keeps more at the site."""
        return self.spec.federated

    @property
    def local(self) -> tuple[str, ...]:
        """Names of the parts that stay at the site in this study."""
        return self.spec.local

    @abc.abstractmethod
    def draw(self, batch: int, rng: torch.Generator) -> Tensor:
        """Return the random numbers of one step, (B, any), from a CPU generator; (B, 0) where none are needed."""

    @abc.abstractmethod
    def forward(self, views: Tensor, noise: Tensor) -> Tensor:
        """(B, V, C, *S) in [0, 1] and `draw`'s numbers -> the loss of each image, (B,)."""

    @abc.abstractmethod
    def preview(self, views: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Pictures that show what the method does, each (B, C, *S) in [0, 1], by caption."""
