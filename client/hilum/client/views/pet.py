"""Views of PET.

Noise, as fewer counts give, and blur, as another scanner's resolution and reconstruction do. No gamma or contrast: uptake
beside the background is the finding. No flip, since side matters.
"""

from hilum.client.views.recipe import Recipe

CROP = Recipe(area=(0.5, 1.0), rotation_deg=5.0)
STRONG = Recipe(area=(0.4, 1.0), rotation_deg=10.0, noise=0.04, blur=0.03, blur_chance=0.5)
