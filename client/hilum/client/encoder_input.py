"""One image as an encoder takes it, prepared as for training."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hilum.client.prepared import FULL_SCALE, fit, unit_range
from hilum.client.views import Viewer
from hilum.common.config.study import DataSection
from hilum.common.methods import ViewPlan


def encoder_input(
    image: npt.NDArray[np.generic], data: DataSection, spacing_mm: tuple[float, ...] = ()
) -> Tensor:
    """Prepare one image.

    Args:
        image: (H, W) or (D, H, W): radiographs as displayed, 0 black to 65535 white; CT in Hounsfield units; MR on any
            scale.
        data: What the encoder was trained on.
        spacing_mm: One distance an axis; empty means square pixels.

    Returns:
        float32 (1, 1, *S) in [0, 1], of the encoder's size.

    Raises:
        ValueError: If the image or the spacing has another number of axes than the encoder's images.
    """
    if image.ndim != data.dims or len(spacing_mm) not in (0, data.dims):
        raise ValueError(
            f"expected an image of {data.dims} axes and as many distances, or none; found {image.ndim} axes and "
            f"{len(spacing_mm)} distances"
        )
    fitted = fit(unit_range(image, data.modality), spacing_mm, data.store_size)
    stored = np.rint(fitted * FULL_SCALE).astype(np.float32) / FULL_SCALE
    return Viewer(data, ViewPlan(1, "crop")).whole(torch.from_numpy(stored)[None, None])
