"""Views of MR.

A smooth bias field, noise, contrast: MR has no absolute intensity, so a view may change it.
"""

from hilum.client.views.recipe import Recipe

CROP = Recipe(area=(0.5, 1.0), rotation_deg=5.0)
STRONG = Recipe(
    area=(0.4, 1.0), rotation_deg=10.0, gamma=(0.7, 1.4), contrast=(0.7, 1.3), bias_field=0.3, noise=0.03,
    blur=0.02, blur_chance=0.3,
)  # fmt: skip
