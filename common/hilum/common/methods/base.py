"""What a self-supervised method is to the rest of Hilum.

Shapes: B batch, V views in a group, C channels, *S space.

A method is a module whose tensors belong to parts: those that travel, those that stay at the site, those that never
change. It takes views and the random numbers that it needs as inputs, draws nothing itself, and gives one loss for each
image. So a step can be repeated bit for bit, and per-sample gradients can be taken of the module as it is.

Adding one takes a file here with its line in `registry`, and a section in `hilum.common.config.methods` with its line there.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hilum.common.config.methods import MethodSection
from hilum.common.encoders import Encoder

RandomNumbers = dict[str, Tensor]
"""The random numbers of one step by name, each (B, ...)."""


@dataclass(frozen=True)
class ViewGroup:
    """Views of one kind.

    Attributes:
        count: V.
        strength: `crop` is a crop and small rotation, as reconstruction wants; `strong` adds changes of intensity
            and blur, which two views of one image must disagree in.
        edge: Of the view, as a share of the study's image size; a local crop has less than 1.
        area: Share of the image that a crop shows, from and to; what the modality's recipe says, if none.
    """

    count: int
    strength: Literal["crop", "strong"]
    edge: float = 1.0
    area: tuple[float, float] | None = None


@dataclass(frozen=True)
class ViewPlan:
    """Which views a method wants of each image.

    Attributes:
        groups: By name. They are drawn in this order.
        geometry: Whether it wants to know where each view was cut out.
        clean: Whether it wants the whole image as well, without any change.
    """

    groups: dict[str, ViewGroup]
    geometry: bool = False
    clean: bool = False


class Geometry(NamedTuple):
    """Where views were cut out of their images, as `hilum.client.views.operations.crop_and_rotate` takes it.

    Attributes:
        scale: (B, V), the edge of the cut as a share of the image's.
        centre: (B, V, dims) in [-1, 1], from one extreme place of the cut to the other, x first.
        angle: (B, V), radians in the plane of the last two axes.
        mirrored: (B, V), whether what was cut out was then mirrored from left to right.
    """

    scale: Tensor
    centre: Tensor
    angle: Tensor
    mirrored: Tensor


class Views(NamedTuple):
    """What a method sees of a batch.

    Attributes:
        groups: (B, V, C, *S) in [0, 1] for each group of the plan.
        geometry: Of each group, if the plan wants it.
        clean: (B, C, *S), if the plan wants it.
        patients: (N,), the patient number of each image of the batch, of which a process may see its share alone; None where
            nobody knows.
    """

    groups: dict[str, Tensor]
    geometry: dict[str, Geometry]
    clean: Tensor | None
    patients: Tensor | None = None


class Loss(NamedTuple):
    """What a step is to make smaller, and what it tells of itself.

    Attributes:
        per_image: (B,).
        parts: Means of the terms that it is the sum of, where there are several; scalars without a gradient.
        health: Whether the method still learns, such as how much features differ; scalars without a gradient.
    """

    per_image: Tensor
    parts: dict[str, Tensor]
    health: dict[str, Tensor]


@dataclass(frozen=True)
class Parts:
    """Which of a method's tensors travel, which stay, and which never change: patterns over their names (`encoder.*`).

    Attributes:
        federated: What travels; parameters alone.
        local: What a site trains and keeps.
        frozen: What nobody trains and everybody has alike; its hash belongs to what a round starts from.
        remembered: Of what travels, what a site also keeps as it left it, for `SSLMethod.receive`.
    """

    federated: tuple[str, ...]
    local: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    remembered: tuple[str, ...] = ()

    def kind_of(self, name: str) -> Literal["federated", "local", "frozen"] | None:
        """Return the part that a tensor belongs to; None if it belongs to none.

        Raises:
            ValueError: If it belongs to several.
        """
        kinds = [kind for kind in ("federated", "local", "frozen") if matches(name, getattr(self, kind))]
        if len(kinds) > 1:
            raise ValueError(f"{name} belongs to several parts: {', '.join(kinds)}")
        return kinds[0] if kinds else None  # type: ignore[return-value]


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a name fits one of several patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class MethodSpec:
    """One entry of `hilum methods`.

    Attributes:
        parts: What travels and what stays, unless a study keeps more at the site.
        dp: Whether patient-level DP-SGD can serve it, as `hilum methods` tells. No mechanism adds noise yet.
        dp_reason: Why, or why not.
        config: Its section, which knows what it accepts.
    """

    name: str
    paradigm: Literal["contrastive", "predictive", "generative", "hybrid"]
    dims: tuple[int, ...]
    parts: Parts
    dp: bool
    dp_reason: str
    views: ViewPlan
    paper: str
    config: type[MethodSection]


class SSLMethod(nn.Module, abc.ABC):
    """A pretext task around an encoder."""

    spec: MethodSpec
    encoder: Encoder

    @property
    def parts(self) -> Parts:
        """What travels and what stays in this study."""
        return self.spec.parts

    @abc.abstractmethod
    def draw(self, batch: int, rng: torch.Generator) -> RandomNumbers:
        """Return the random numbers of one step, on the generator's device; none, where the views hold all the randomness."""

    @abc.abstractmethod
    def forward(self, views: Views, numbers: RandomNumbers) -> Loss:
        """Return the loss of each image of a batch."""

    @abc.abstractmethod
    def preview(self, views: Views, numbers: RandomNumbers) -> dict[str, Tensor]:
        """Return pictures that show what the method does, each (B, C, *S) in [0, 1], by caption."""

    def after_step(self, done: float) -> None:
        """Do what follows a step that moved the weights, such as moving a teacher; nothing, unless a method says so.

        Args:
            done: The share of the study's whole schedule that is done.
        """

    def receive(self, received: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
        """Take up a round's weights: what travelled is overwritten, what the site kept is put back.

        A method that mixes both, or keeps a part of the encoder, says so here.

        Args:
            received: What travelled, by name.
            kept: What this site kept of its last round, by name: its local parts and what it remembers; empty at first.
        """
        own = self.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, tensor in received.items():
                own[name].copy_(tensor)
            for name, tensor in kept.items():
                if self.parts.kind_of(name) == "local":
                    own[name].copy_(tensor)
