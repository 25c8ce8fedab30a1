"""Which changes of an image are no view of it: what a reader would say of the image would change with them.

A study may take one all the same, by name (`views.allow`). What can't be done at all, such as a hue of grey images, it can't.
"""

from collections.abc import Mapping

COLOUR_ONLY = ("saturation", "hue", "stain")
FLAT_ONLY = ("depth_gain",)
MAX_TILT_DEG = 45.0
"""An image that is turned by more stands on another side, as after a quarter turn."""

_SPECKLE = (
    "speckle is the interference of sound, and these images are not made with it (Burckhardt, IEEE Trans. Sonics Ultrason. 25(1), "
    "1978)"
)
_DEPTH = "depth runs down the image in ultrasound alone"
_STAIN = "hematoxylin and eosin are in stained tissue alone (arXiv 1902.06543)"
_OTHER_PHYSICS = {"speckle": _SPECKLE, "depth_gain": _DEPTH}
_UP = (
    "the image has an up and a down: air rises and fluid falls (DICOM PS3.3 C.7.6.1.1.1, Patient Orientation)"
)
_UPRIGHT = {"vertical_flip": _UP, "quarter_turns": _UP}
_SIDE = "the side of the heart and of the liver is a finding (DICOM PS3.3 C.7.6.1.1.1, Patient Orientation)"
_HU = "it bends Hounsfield units, which mean the same on every scanner: water is 0, air -1000 (DICOM PS3.3 C.11.1.1.2)"
_UPTAKE = "uptake beside the background is the finding, and it would change (DICOM PS3.3 C.8.9.1, Units)"
_SHADOW = "sound comes from above: shadows and enhancement lie below what casts them (arXiv 2105.02188)"
_WALL = "the muscle of the chest wall lies at the top or the side that the view says (DICOM PS3.3 C.8.11.7, View Code Sequence)"
_BREAST = "a left and a right breast are read as such (DICOM PS3.3 C.8.11.7, Image Laterality)"
_EYE = "the optic disc lies on the nose's side, so a mirrored right eye is a left eye (DICOM PS3.3 C.8.17.5, Image Laterality)"
_MACULA = (
    "the macula lies below the middle of the optic disc, by 1.5 degrees on average (doi 10.1167/iovs.03-1157)"
)

Refused = Mapping[str, str]
"""By operation: why it is no view, and where that stands."""

PHOTOGRAPH: Refused = {"stain": _STAIN, **_OTHER_PHYSICS}
PATHOLOGY: Refused = _OTHER_PHYSICS
FUNDUS: Refused = {
    "horizontal_flip": _EYE,
    "vertical_flip": _MACULA,
    "quarter_turns": _MACULA,
    "stain": _STAIN,
    **_OTHER_PHYSICS,
}
ULTRASOUND: Refused = {"vertical_flip": _SHADOW, "quarter_turns": _SHADOW}
INSIDE_OF_A_BODY: Refused = {"horizontal_flip": _SIDE, **_UPRIGHT, **_OTHER_PHYSICS}
MAMMOGRAM: Refused = {
    "horizontal_flip": _BREAST,
    "vertical_flip": _WALL,
    "quarter_turns": _WALL,
    **_OTHER_PHYSICS,
}
CT: Refused = {**INSIDE_OF_A_BODY, "gamma": _HU, "contrast": _HU, "bias_field": _HU}
PET: Refused = {**INSIDE_OF_A_BODY, "gamma": _UPTAKE, "contrast": _UPTAKE, "bias_field": _UPTAKE}
