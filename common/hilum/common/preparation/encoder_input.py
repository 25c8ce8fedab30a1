"""One image or volume as an encoder takes it, prepared as for training."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hilum.common.config.data import DataSection
from hilum.common.config.modalities import COLOUR_FAMILIES, Modality
from hilum.common.preparation.fitting import fitted_channels, whole_view
from hilum.common.preparation.intensity import FULL_SCALE
from hilum.common.preparation.packing import packed_values
from hilum.common.preparation.pieces import Geometry, covering_origins, cut_out

_HIGHEST_OF_8_BITS = 255
_COLOURS = 3


def encoder_input(
    image: npt.NDArray[np.generic], data: DataSection, spacing_mm: tuple[float, ...] = ()
) -> Tensor:
    """Prepare one image, or a volume.

    Args:
        image: (H, W) or (D, H, W), in the values that the modality has: radiographs, and all else that is brightness, as
            displayed, 0 black to 65535 white; CT in Hounsfield units; MR and PET on any scale. Of photographs and
            ultrasound also (H, W, 3) uint8 in RGB.
        data: What the encoder was trained on.
        spacing_mm: One distance an axis; empty means square pixels. Patches need it.

    Returns:
        float32 (n, C, *S) in [0, 1], of the encoder's size. n is 1; of an encoder of patches or slices, as many as cover what
        the volume shows, at most `hilum.common.preparation.pieces.MAX_PIECES`, and the mean of their features is the volume's.

    Raises:
        ValueError: If the image or the spacing has another number of axes than the encoder's images, or if the values
            are not such as `image` asks for.
    """
    axes = data.dims if data.cut == "whole" else 3
    distances = (3,) if data.cut == "patches" else (0, axes)
    in_colour = _is_colour(image, data)
    if (image.ndim != axes and not in_colour) or len(spacing_mm) not in distances:
        or_none = "" if data.cut == "patches" else ", or none"
        raise ValueError(
            f"expected an image of {axes} axes and as many distances{or_none}; found {image.ndim} axes and "
            f"{len(spacing_mm)} distances"
        )
    if any(not distance > 0 for distance in spacing_mm):
        raise ValueError(f"expected distances above 0 mm, found {spacing_mm}")
    if not in_colour:
        _check_values(image, data.facts)
    if data.cut != "whole":
        return _pieces(image, data, spacing_mm or (1.0,) * axes)
    fitted = fitted_channels(image, "image" if data.dims == 2 else "volume", spacing_mm, data)  # noqa: PLR2004 - images
    stored = np.rint(fitted * FULL_SCALE).astype(np.float32) / FULL_SCALE
    return whole_view(torch.from_numpy(stored)[None], data)


def _is_colour(image: npt.NDArray[np.generic], data: DataSection) -> bool:
    """Tell whether an image is in colour and the modality takes it.

    Raises:
        ValueError: If it is in colour, but not of 8 bits.
    """
    shaped = data.dims == 2 and image.ndim == 3 and image.shape[-1] == _COLOURS  # noqa: PLR2004 - (H, W, 3)
    if not shaped or data.facts.family not in COLOUR_FAMILIES:
        return False
    if image.dtype != np.uint8:
        raise ValueError(
            f"a colour image is uint8, 0 to 255, red, green and blue; this one is {image.dtype}: bring it to that range"
        )
    return True


def _pieces(image: npt.NDArray[np.generic], data: DataSection, spacing_mm: tuple[float, ...]) -> Tensor:
    """Return the patches or slices of a volume, (n, 1, *S)."""
    geometry = Geometry.of(data)
    values, cells = packed_values(image, spacing_mm, data)
    depth, height, width = values.shape
    origins = covering_origins((depth, height, width), cells, geometry.cell, geometry.seen)
    cut = cut_out(values, origins, geometry.seen)[:, None]
    stored = (cut[:, :, 0] if geometry.flat else cut).astype(np.float32) / FULL_SCALE
    return whole_view(torch.from_numpy(stored), data)


def _check_values(image: npt.NDArray[np.generic], modality: Modality) -> None:
    """Refuse values that would give an input without any picture in it.

    Raises:
        ValueError: If a value is not finite, or one of brightness has the range of 8 bits or of [0, 1].
    """
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("the image holds values that are not finite (NaN or infinity); replace them first")
    highest = values.max()
    if modality.is_displayed and highest <= _HIGHEST_OF_8_BITS:
        factor = "65535" if highest <= 1 else "257"
        raise ValueError(
            f"a grey {modality.family} has values from 0 (black) to 65535 (white), and this one's highest is {highest:g}; where "
            f"{'1' if highest <= 1 else '255'} is white, multiply the image by {factor} (as float)"
        )
