"""Where the pixels or voxels of an image lie on the grid that it is prepared on, and the way back.

Shapes: K channels, *S the prepared space, *O the image's own space (H W, or D H W); both have the same axes.

Preparation scales, shifts and cuts along the axes and never turns, so that each axis has one line of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hilum.common.config.data import DataSection
from hilum.common.preparation.fitting import channels_shown, place_in
from hilum.common.preparation.kinds import Kind
from hilum.common.preparation.packing import target_spacing
from hilum.common.preparation.resampling import shape_after

ClassNumbers = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class OwnGrid:
    """An image's own grid beside the prepared one.

    Attributes:
        shape: *O.
        prepared: *S.
        kept: The part of it that was prepared; the rest is the black around a picture.
        begins: Where `kept` begins on the prepared grid, in its voxels; the first voxel lies from 0 to 1.
        steps: How many prepared voxels one of its own is, along each axis.
        spacing_mm: Of its own grid; empty where it has none.
    """

    shape: tuple[int, ...]
    prepared: tuple[int, ...]
    kept: tuple[slice, ...]
    begins: tuple[float, ...]
    steps: tuple[float, ...]
    spacing_mm: tuple[float, ...]

    @classmethod
    def of(
        cls, array: npt.NDArray[Any], kind: Kind, spacing_mm: tuple[float, ...], data: DataSection
    ) -> "OwnGrid":
        """Return that of a cached array, as `prepare` prepares it.

        Args:
            array: (H, W), (H, W, 3) or (D, H, W).
            kind: Which of these it is.
            spacing_mm: One distance an axis; empty means square pixels.
            data: The study's.
        """
        if data.cut == "whole":
            shape = array.shape if kind == "volume" else array.shape[:2]
            prepared = (data.store_size,) * data.dims
            kept = channels_shown(array, kind, data)[1][1:] if data.facts.dark_border else _all_of(shape)
            sizes = tuple(part.stop - part.start for part in kept)
            places = place_in(sizes, spacing_mm, data.store_size)
            begins = [float(place.start) for place in places]
            steps = [(place.stop - place.start) / size for place, size in zip(places, sizes, strict=True)]
        else:
            shape, target_mm = array.shape, target_spacing(array.shape, spacing_mm, data)
            kept = _all_of(shape)
            prepared = shape_after(shape, spacing_mm, target_mm)
            steps = [own / new for own, new in zip(spacing_mm, target_mm, strict=True)]
            # Both grids have the same centre; see `resampling`.
            begins = [(new - old * step) / 2 for new, old, step in zip(prepared, shape, steps, strict=True)]
        return cls(shape, prepared, kept, tuple(begins), tuple(steps), spacing_mm)

    def classes_back(self, scores: Tensor) -> ClassNumbers:
        """Return the class of each own voxel, (*O): that of the highest score, interpolated linearly.

        Args:
            scores: (K, ...) of classes, the first of which is the background, all over the prepared space, in its voxels
                or in coarser ones.
        """
        numbers = np.zeros(self.shape, np.uint8)
        inside = numbers[self.kept]
        places = []
        for axis, edge in enumerate(self.prepared):
            begin, step, size = self.begins[axis], self.steps[axis], inside.shape[axis]
            # Half a voxel from where the image ends nothing comes in from beside it.
            margin = min(0.5 * edge / scores.shape[1 + axis], 0.5 * step * size)
            along = begin + (step * (np.arange(size) + 0.5)).clip(margin, step * size - margin)
            places.append(along / edge)
        if len(places) == 2:  # noqa: PLR2004 - H W
            inside[:] = _sampled(scores, places).argmax(0).numpy()
        else:
            for depth, place in enumerate(
                places[0]
            ):  # a slice at a time, so that large volumes fit into memory
                found = _sampled(scores, [np.array([place]), *places[1:]])
                inside[depth] = found.argmax(0)[0].numpy()
        return numbers


def _all_of(shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(0, edge) for edge in shape)


def _sampled(scores: Tensor, places: Sequence[npt.NDArray[np.float64]]) -> Tensor:
    """Interpolate (K, *S) at a grid of places along its axes, each from 0, where its first voxel begins, to 1."""
    lines = [torch.from_numpy(2 * along - 1).float() for along in places]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)[None]
    return F.grid_sample(scores[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
