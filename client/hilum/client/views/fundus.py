"""Views of fundus photographs.

Light that differs (gamma, contrast, uneven, the eye's and the camera's tint), small rotations, crops that keep half of the field. No
flip: the optic disc's side tells a right eye from a left one, and the macula lies below the disc's middle.
"""

from hilum.client.views.recipe import Recipe

CROP = Recipe(area=(0.5, 1.0), tissue=0.06, rotation_deg=10.0)
STRONG = Recipe(
    area=(0.4, 1.0), tissue=0.06, rotation_deg=15.0, gamma=(0.7, 1.4), contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=0.02,
    bias_field=0.2, blur=0.01, blur_chance=0.5,
)  # fmt: skip
