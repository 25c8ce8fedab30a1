"""Views of microscopic images of stained tissue.

A slide has no up, no left and no right: all eight flips and quarter turns. Stains differ between laboratories, so their densities change
by themselves (arXiv 1902.06543), and hue hardly: blue and pink are what tells nuclei from the rest.
"""

from hilum.client.views.recipe import Recipe

CROP = Recipe(area=(0.4, 1.0), horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=1.0)
STRONG = Recipe(
    area=(0.3, 1.0), horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=1.0, gamma=(0.8, 1.25), contrast=(0.8, 1.2),
    stain=0.2, blur=0.01, blur_chance=0.3,
)  # fmt: skip
