"""What every encoder offers, and how its weights begin.

Shapes: B batch, C channels, *S space (H W, or D H W), E embedding, *G the grid of a feature map. In a mask, 1 means
removed.

Adding one takes a file here with its line in `registry`, and a section in `hilum.common.config.encoders` with its line there.
"""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hilum.common.config.data import DataSection


@dataclass(frozen=True)
class Scale:
    """What an encoder does to values in [0, 1] before anything else: `(x - mean) / deviation`.

    Not standardised, a random transformer's first component is the image's brightness, and training makes it larger.
    """

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, data: DataSection) -> "Scale":
        """Return the constants of a study's modality, the same at every site."""
        return cls(data.facts.mean, data.facts.deviation)

    def __call__(self, values: Tensor) -> Tensor:
        """Standardise values in [0, 1], of any shape."""
        return (values - self.mean) / self.deviation

    def architecture(self) -> dict[str, float]:
        """Return it as plain values."""
        return {"mean": self.mean, "deviation": self.deviation}


AS_IT_IS = Scale()


class Encoder(nn.Module, abc.ABC):
    """Maps images to features, at one scale or several.

    Attributes:
        dims: 2 or 3.
        width: E, of the last feature map.
        strides: The edge of the image over that of each feature map, from fine to coarse.
        widths: The channels of each feature map.
        before_blocks: The names of the parts that images pass before the first of its `Blocks`; fine-tuning moves them least.
    """

    dims: int
    width: int
    strides: tuple[int, ...]
    widths: tuple[int, ...]
    before_blocks: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Return all that one needs beside the tensors to build the network again elsewhere, as plain values."""

    @abc.abstractmethod
    def feature_maps(self, images: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Return the feature maps of a batch, from fine to coarse, for dense tasks and for methods that mask.

        Args:
            images: (B, C, *S) float in [0, 1], of the size that the encoder was made for or another one.
            mask: (B, *G) of 0 and 1 on the grid of the last map, 1 where the image is removed; None removes nothing. What
                lies under the mask has no influence on any map, and every map is 0 there. Each image keeps something.

        Returns:
            Each (B, width, *G), G the image's edge over the stride, rounded up.

        Raises:
            ValueError: If the images have another number of axes or channels or a size that can't be, or the mask does not
                fit them.
        """

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> (B, E): the mean of the last feature map."""
        return self.feature_maps(images)[-1].flatten(2).mean(2)

    def residuals(self, images: Tensor) -> Tensor:
        """Return what all residual blocks add up to, before a last norm if there is one, in any shape (B, ...).

        It grows where training drifts, which a norm after it hides.
        """
        return self.feature_maps(images)[-1]

    def pooled(self, residuals: Tensor) -> Tensor:
        """Return the features (B, E) of images whose `residuals` are known."""
        return residuals.flatten(2).mean(2)


def check_mask(mask: Tensor, images: Tensor, grid: tuple[int, ...]) -> None:
    """Refuse a mask that does not fit.

    Args:
        mask: To be (B, *grid).
        images: (B, C, *S).
        grid: Of the last map.

    Raises:
        ValueError: If it has another shape, values other than 0 and 1, or removes all of an image.
    """
    wanted = (len(images), *grid)
    if tuple(mask.shape) != wanted:
        raise ValueError(f"expected a mask of shape {wanted}, found {tuple(mask.shape)}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("a mask holds 0 and 1 alone: 1 where the image is removed")
    if (mask == 1).flatten(1).all(1).any():
        raise ValueError("the mask removes all of an image; each must keep something")


def check_images(images: Tensor, dims: int) -> None:
    """Refuse images of another number of axes.

    Raises:
        ValueError: If they are.
    """
    if images.ndim != dims + 2:
        raise ValueError(
            f"expected images of shape (batch, channels, {dims} axes), found {tuple(images.shape)}"
        )


_NORMS = (nn.LayerNorm, nn.GroupNorm)
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


def initialise(module: nn.Module, rng: torch.Generator) -> None:
    """Give every parameter its first value from `rng`, in the order of names, whatever the process did before.

    Linear layers are Xavier-uniform and convolutions Kaiming-normal (arXiv 1502.01852), embeddings normal with
    deviation 0.02, norms identity, biases zero.

    Raises:
        TypeError: If a layer's kind has no rule, since it would keep values from the process's own state.
    """
    for name, layer in module.named_modules():
        own = dict(layer.named_parameters(recurse=False))
        if not own:
            continue
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=rng)
        elif isinstance(layer, _CONVOLUTIONS):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=rng)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, std=0.02, generator=rng)
        elif isinstance(layer, _NORMS):
            nn.init.ones_(layer.weight)
        else:
            raise TypeError(
                f"no rule gives the parameters of {name} ({type(layer).__name__}) their first values"
            )
        if own.get("bias") is not None:
            nn.init.zeros_(own["bias"])
