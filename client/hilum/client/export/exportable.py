"""A network with all that whoever runs it elsewhere must know.

Shapes: B batch, C channels, *S space (H W, or D H W), E embedding, K outputs.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hilum.common import __version__
from hilum.common.config.data import DataSection
from hilum.common.export import geometry_of

Outcome = Literal["features", "scores", "maps"]


@dataclass(frozen=True)
class Exportable:
    """An encoder, or a model with a head on one.

    Attributes:
        kind: Which of the two.
        name: The study's.
        module: In evaluation mode, on the CPU; (B, C, *S) float32 in [0, 1] -> (B, E), (B, K) or (B, K, *S).
        data: What its images are.
        output: What it gives: features, one score for each name, or maps of scores.
        output_words: The same for people.
        names: Of the outputs, such as classes; empty for features.
        sha256: Over names, shapes, dtypes and bytes of its tensors.
        folder: Where its own files lie.
        manifest: What `manifest.json` says of it.
        card: Its `MODEL_CARD.md`.
        licence: Under which it may be used, in the words of whoever may say so.
    """

    kind: Literal["encoder", "model"]
    name: str
    module: nn.Module = field(repr=False)
    data: DataSection
    output: Outcome
    output_words: str
    names: tuple[str, ...]
    sha256: str
    folder: Path = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    card: str = field(repr=False)
    licence: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, *S)."""
        return (self.data.facts.channels, *self.data.view_size)

    @property
    def input_words(self) -> str:
        """How an image becomes an input."""
        return f"Intensity: {self.data.facts.intensity}. Geometry: {geometry_of(self.data)}."

    def example(self, count: int, seed: int = 0) -> Tensor:
        """Return a batch of noise (count, C, *S) in [0, 1]."""
        return torch.rand(count, *self.input_shape, generator=torch.Generator().manual_seed(seed))

    def description(self) -> dict[str, str]:
        """Return what each file is to hold of it, as texts."""
        return {
            "made_by": f"Hilum {__version__}",
            "name": self.name,
            "kind": self.kind,
            "sha256": self.sha256,
            "modality": self.data.modality,
            "input": json.dumps(["batch", *self.input_shape]),
            "input_range": "[0.0, 1.0]",
            "input_intensity": self.data.facts.intensity,
            "input_geometry": geometry_of(self.data),
            "output": self.output_words,
            "output_names": json.dumps(list(self.names)),
            "licence": self.licence,
        }


def largest_difference(first: Tensor | np.ndarray[Any, Any], second: Tensor | np.ndarray[Any, Any]) -> float:
    """Return how far two results are from each other, as a share of the second's largest value where that is above 1."""
    a, b = (np.asarray(one, np.float64) for one in (first, second))
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))
