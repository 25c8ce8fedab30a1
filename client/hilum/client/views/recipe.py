"""How views of one modality may differ without changing what a reader would say of the image.

Adding a modality takes a file here with its two recipes, `CROP` and `STRONG`, its line in `batch`, and what its values mean in
`hilum.common.config.modalities`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Ranges that a view draws from, uniformly. An empty range leaves the property as it is.

    Attributes:
        area: Share of the image (of its volume in 3D) that a crop shows.
        rotation_deg: Largest rotation in the image plane (about the axis of slices in 3D), either way.
        gamma: Exponent on [0, 1] intensities, drawn on a logarithmic scale.
        contrast: Factor about the image's mean.
        bias_field: Largest logarithm of a smooth multiplicative field, either way (MR coil sensitivity).
        blur: Largest Gaussian deviation, as a share of the view's longest edge.
        blur_chance: Share of the views that are blurred.
        noise: Largest deviation of added Gaussian noise.
    """

    area: tuple[float, float]
    rotation_deg: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    bias_field: float = 0.0
    blur: float = 0.0
    blur_chance: float = 0.0
    noise: float = 0.0
