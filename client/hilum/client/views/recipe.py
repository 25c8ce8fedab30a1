"""How views of one modality may differ without changing what a reader would say of the image.

Adding a modality takes a file here with its two recipes, `CROP` and `STRONG`, its line in `batch`, and in
`hilum.common.config.modalities` what its values mean and which changes are no view of it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Ranges that a view draws from, uniformly. An empty range leaves the property as it is.

    A study may put its own in their place, by these names (`hilum.common.config.views`).

    Attributes:
        area: Share of the image (of its volume in 3D) that a crop shows.
        tissue: A crop's middle is where the image is brighter than this; 0 takes crops from anywhere.
        rotation_deg: Largest rotation in the image plane (about the axis of slices in 3D), either way.
        horizontal_flip: Share of the views that are mirrored, left to right.
        vertical_flip: Share of the views that are turned over, top to bottom.
        quarter_turns: Share of the views that are turned by none, one, two or three quarter turns, in the image plane.
        gamma: Exponent on [0, 1] intensities, drawn on a logarithmic scale.
        contrast: Factor about the image's mean.
        saturation: Factor of the difference from grey.
        hue: Largest turn of the colour circle, in whole turns, either way.
        stain: Largest share by which the density of a stain changes, and a tenth of it is added, either way.
        bias_field: Largest logarithm of a smooth multiplicative field, either way (MR coil sensitivity, uneven light).
        depth_gain: Largest logarithm of a gain that changes with depth, either way.
        blur: Largest Gaussian deviation, as a share of the view's longest edge.
        blur_chance: Share of the views that are blurred.
        noise: Largest deviation of added Gaussian noise.
        speckle: Largest deviation of a random factor of each pixel.
    """

    area: tuple[float, float]
    tissue: float = 0.0
    rotation_deg: float = 0.0
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    quarter_turns: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    saturation: tuple[float, float] = (1.0, 1.0)
    hue: float = 0.0
    stain: float = 0.0
    bias_field: float = 0.0
    depth_gain: float = 0.0
    blur: float = 0.0
    blur_chance: float = 0.0
    noise: float = 0.0
    speckle: float = 0.0
