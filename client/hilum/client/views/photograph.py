"""Views of photographs: skin, wounds, endoscopy.

Mirrored and tilted as a camera is held, and light that differs: gamma, contrast, uneven, a little warmer or colder. Hue stays within
a camera's white balance, since redness is a finding.
"""

from hilum.client.views.recipe import Recipe

CROP = Recipe(area=(0.4, 1.0), rotation_deg=10.0, horizontal_flip=0.5)
STRONG = Recipe(
    area=(0.3, 1.0), rotation_deg=20.0, horizontal_flip=0.5, gamma=(0.7, 1.4), contrast=(0.7, 1.3), saturation=(0.7, 1.3),
    hue=0.02, bias_field=0.2, blur=0.02, blur_chance=0.5,
)  # fmt: skip
