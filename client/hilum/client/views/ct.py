"""Views of CT.

Noise, small rotations, crops. No gamma: it would bend Hounsfield units, which mean the same on every scanner. No
flip, since side matters.
"""

from hilum.client.views.recipe import Recipe

CROP = Recipe(area=(0.5, 1.0), rotation_deg=5.0)
STRONG = Recipe(area=(0.4, 1.0), rotation_deg=10.0, noise=0.03, blur=0.02, blur_chance=0.5)
