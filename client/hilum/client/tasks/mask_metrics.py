"""How well predicted masks agree with those that were drawn, on the image's own grid. Measured by MONAI.

Shapes: K classes without the background, *O the image's own space.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hilum.client.data.own_grid import ClassNumbers

MEASURES = ("dice", "surface_dice", "hd95_mm")
Values = npt.NDArray[np.float64]


def measure_masks(
    predicted: ClassNumbers,
    drawn: ClassNumbers,
    classes: int,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> Values:
    """Return (K, 3): Dice, surface Dice (arXiv 1809.04430) and the 95th percentile of the Hausdorff distance, of each class.

    A class that is neither predicted nor drawn is NaN. One that is either has nothing in common: 0, 0, and as a distance the
    image's diagonal.

    Args:
        predicted: (*O), 0 for the background, then the classes from 1 on.
        drawn: The same.
        classes: K.
        spacing_mm: One distance an axis; empty means pixels, and distances are in pixels then.
        tolerance_mm: Within which two surfaces agree.
    """
    spacing = tuple(spacing_mm) or (1.0,) * drawn.ndim
    diagonal = float(np.linalg.norm(np.array(spacing) * drawn.shape))
    table = np.full((classes, len(MEASURES)), np.nan)
    for number in range(1, classes + 1):
        ours, theirs = predicted == number, drawn == number
        if ours.any() and theirs.any():
            table[number - 1] = _of_class(ours, theirs, spacing, tolerance_mm)
        elif ours.any() or theirs.any():
            table[number - 1] = 0.0, 0.0, diagonal
    return table


def _of_class(
    ours: npt.NDArray[np.bool_],
    theirs: npt.NDArray[np.bool_],
    spacing: tuple[float, ...],
    tolerance_mm: float,
) -> tuple[float, float, float]:
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.meandice import compute_dice
    from monai.metrics.surface_dice import compute_surface_dice

    # MONAI 1.5 and 1.6 warn of an argument that they themselves give.
    warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)
    a, b = (torch.from_numpy(mask)[None, None].float() for mask in (ours, theirs))
    surface = compute_surface_dice(a, b, [tolerance_mm], include_background=True, spacing=spacing)
    distance = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=spacing)
    return float(compute_dice(a, b)), float(surface), float(distance)
