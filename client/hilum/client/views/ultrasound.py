"""Views of ultrasound.

What an examiner's hand and knobs change: gain by depth, gamma, speckle, the probe mirrored or tilted a little. Crops keep most of the
fan: what a whole image means is lost in a part of it (arXiv 2504.07904). Never turned over: sound comes from above, and shadows
lie below what casts them.
"""

from hilum.client.views.recipe import Recipe

CROP = Recipe(area=(0.7, 1.0), tissue=0.06, rotation_deg=5.0, horizontal_flip=0.5)
STRONG = Recipe(
    area=(0.6, 1.0), tissue=0.06, rotation_deg=10.0, horizontal_flip=0.5, gamma=(0.7, 1.4), contrast=(0.7, 1.3),
    depth_gain=0.4, blur=0.01, blur_chance=0.3, speckle=0.2,
)  # fmt: skip
