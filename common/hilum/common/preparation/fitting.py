"""Bring an image or volume that is taken whole to the encoder's channels, range and size.

Shapes: B batch, C channels, *S space (H W, or D H W), T frames of a clip.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hilum.common.config.data import DataSection
from hilum.common.preparation.intensity import unit_range
from hilum.common.preparation.kinds import Kind
from hilum.common.preparation.picture import channels_of, content_box, still_of


def fitted_channels(
    array: npt.NDArray[np.generic], kind: Kind, spacing_mm: tuple[float, ...], data: DataSection
) -> npt.NDArray[np.float32]:
    """Bring a cached array to the study's channels, range and size.

    Args:
        array: (H, W), (H, W, 3), (T, H, W), (T, H, W, 3) or (D, H, W).
        kind: Which of these it is.
        spacing_mm: One distance an axis of space; empty means square pixels.
        data: The study's.

    Returns:
        (C, *S) in [0, 1].
    """
    values, box = channels_shown(array, kind, data)
    return np.stack([fit(channel, spacing_mm, data.store_size) for channel in values[box]])


def channels_shown(
    array: npt.NDArray[np.generic], kind: Kind, data: DataSection
) -> tuple[npt.NDArray[np.float32], tuple[slice, ...]]:
    """Bring a cached array to the study's channels and range, (C, *S) in [0, 1]; give the part of it that is kept, too."""
    facts = data.facts
    values = unit_range(channels_of(still_of(array, kind), kind, facts), facts)
    return values, content_box(values) if facts.dark_border else tuple(map(slice, values.shape))


def fit(values: npt.NDArray[np.float32], spacing_mm: tuple[float, ...], edge: int) -> npt.NDArray[np.float32]:
    """Scale an image or volume, true to its physical proportions, to fill an edge; pad the rest with zero.

    Args:
        values: (*S).
        spacing_mm: One distance an axis; empty means square pixels.
        edge: Of the result.

    Returns:
        (edge, edge) or (edge, edge, edge).
    """
    place = place_in(values.shape, spacing_mm, edge)
    inner = [part.stop - part.start for part in place]
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    if tensor.ndim == 4:  # noqa: PLR2004 - B C H W
        scaled = F.interpolate(tensor, inner, mode="bilinear", antialias=True)
    else:
        # Average first where an axis shrinks: trilinear sampling alone would skip voxels.
        smaller = [min(part, size) for part, size in zip(inner, values.shape, strict=True)]
        scaled = F.interpolate(F.interpolate(tensor, smaller, mode="area"), inner, mode="trilinear")
    fitted = np.zeros((edge,) * values.ndim, np.float32)
    fitted[place] = scaled[0, 0].clamp(0, 1).numpy()
    return fitted


def place_in(shape: tuple[int, ...], spacing_mm: tuple[float, ...], edge: int) -> tuple[slice, ...]:
    """Return which part of an array of this edge an image or volume fills, true to its physical proportions, in its middle."""
    extent = np.array(shape, float) * (np.array(spacing_mm) if spacing_mm else 1.0)
    inner = [max(1, round(edge * part / extent.max())) for part in extent]
    return tuple(slice((edge - part) // 2, (edge - part) // 2 + part) for part in inner)


def whole_view(images: Tensor, data: DataSection) -> Tensor:
    """(B, C, *store) -> (B, C, *image): the whole of each, without any change by chance."""
    size = list(data.view_size)
    if data.dims == 2:  # noqa: PLR2004 - dimensions, not a threshold
        return F.interpolate(images, size, mode="bilinear", antialias=True)
    return F.interpolate(images, size, mode="trilinear")
