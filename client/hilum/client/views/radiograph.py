"""Views of radiographs.

Small rotations, crops of at least half, gamma: what positioning and exposure change. No flip (the heart's side is a
finding), no hue or solarisation (there is no such radiograph).
"""

from hilum.client.views.recipe import Recipe

CROP = Recipe(area=(0.5, 1.0), rotation_deg=5.0)
STRONG = Recipe(
    area=(0.5, 1.0), rotation_deg=10.0, gamma=(0.6, 1.6), contrast=(0.7, 1.3), blur=0.02, blur_chance=0.5
)
