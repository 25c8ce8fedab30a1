"""Views of mammograms.

Small rotations, and crops that lie on the breast and not on the black beside it. Mild gamma alone, since density is a
finding; little blur, since calcifications are a few pixels wide. No flip: left and right breasts are read as such.
"""

from hilum.client.views.recipe import Recipe

CROP = Recipe(area=(0.4, 1.0), tissue=0.06, rotation_deg=5.0)
STRONG = Recipe(
    area=(0.3, 1.0), tissue=0.06, rotation_deg=10.0, gamma=(0.8, 1.25), contrast=(0.8, 1.2), blur=0.005,
    blur_chance=0.3, noise=0.02,
)  # fmt: skip
