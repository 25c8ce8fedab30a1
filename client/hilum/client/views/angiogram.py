"""Views of angiograms.

Small rotations, crops of at least half, gamma and the noise of few photons: what angle, exposure and dose change. No flip: the left and
the right coronary artery are not one another's image.
"""

from hilum.client.views.recipe import Recipe

CROP = Recipe(area=(0.5, 1.0), rotation_deg=5.0)
STRONG = Recipe(
    area=(0.5, 1.0), rotation_deg=10.0, gamma=(0.7, 1.4), contrast=(0.7, 1.3), blur=0.01, blur_chance=0.3, noise=0.04
)  # fmt: skip
