"""The one list of modalities: what their values mean, and what becomes of them. No torch here."""

from dataclasses import dataclass
from typing import Literal

from hilum.common.config import view_rules

DISPLAY_WHITE = 65_535.0


@dataclass(frozen=True)
class Modality:
    """What sets one modality apart.

    Attributes:
        family: The catalogue's name of what made its images. Several modalities may share one: nothing in the catalogue tells
            a fundus from a skin, so the study does.
        volumes: Whether it has volumes beside images.
        values: The values that become 0 and 1; what lies beyond is clipped. None where the scale is arbitrary, and each
            array's own percentiles serve.
        intensity: What becomes of its values, in words.
        expects: What an image of it is, in words.
        channels: C: 1 for grey, 3 for red, green and blue.
        mean: Of its values in [0, 1], over all channels; an encoder takes it away first, and divides by `deviation`.
        deviation: Of the same. One number for all channels keeps colours what they are.
        origin: Where these two come from.
        refused: Changes of an image that are no view of it.
        dark_border: Whether the images lie on black that shows nothing, which is cut away before they are scaled.
        scale: What becomes 0 and 1 where the scale is arbitrary: percentiles, or so many deviations about the mean.
        shows_from: The value from which a place shows something, and not the air around; a tenth of the way from 0 to 1,
            if none.
    """

    family: str
    volumes: bool
    values: tuple[float, float] | None
    intensity: str
    expects: str
    mean: float
    deviation: float
    origin: str
    refused: view_rules.Refused
    channels: int = 1
    dark_border: bool = False
    scale: Literal["percentiles", "zscore"] = "percentiles"
    shows_from: float | None = None

    @property
    def is_displayed(self) -> bool:
        """Whether values are brightness on a display, black to white."""
        return self.values == (0.0, DISPLAY_WHITE)


PERCENTILES = (0.5, 99.5)
"""Of an array with an arbitrary scale, what becomes 0 and 1."""
Z_SCORE_REACH = 4.0
"""Deviations on either side of the mean that lie in [0, 1]."""

SUV_WINDOW = (0.0, 10.0)
"""Of PET in SUV: what becomes 0 and 1, unless a study says otherwise."""
SUV_SHOWS_FROM = 0.2
"""Of PET in SUV: from where a place shows something. Lung has about 0.5, and air what noise and scatter leave."""

COLOUR_FAMILIES = frozenset({"photograph", "ultrasound"})
"""The families whose images may be in colour in the catalogue."""

_DISPLAY = (0.0, DISPLAY_WHITE)
_GREY_PICTURE = "(H, W) as displayed, 0 black to 65535 white"
_COLOUR_PICTURE = "(H, W, 3) uint8 in RGB"
_IN_COLOUR = "brightness as displayed of red, green and blue, 0 is 0 and white 1; what is grey has three equal channels"
_NEUTRAL = "neutral: no images at hand to measure"

MODALITIES: dict[str, Modality] = {
    "radiograph": Modality(
        family="radiograph",
        volumes=False,
        values=_DISPLAY,
        intensity="brightness as displayed, bone bright (the file's VOI table or window, MONOCHROME1 inverted), black 0, white 1",
        expects=_GREY_PICTURE,
        mean=0.54,
        deviation=0.24,
        origin="measured: 507 chest films of two collections (NIH ChestX-ray14, ieee8023)",
        refused=view_rules.INSIDE_OF_A_BODY,
    ),
    "mammogram": Modality(
        family="mammogram",
        volumes=False,
        values=_DISPLAY,
        intensity="brightness as displayed, dense tissue bright (the file's VOI table or window, MONOCHROME1 inverted), black 0, "
        "white 1",
        expects=_GREY_PICTURE,
        mean=0.5,
        deviation=0.25,
        origin=_NEUTRAL,
        refused=view_rules.MAMMOGRAM,
        dark_border=True,
    ),
    "ct": Modality(
        family="ct",
        volumes=True,
        values=(-1000.0, 1000.0),  # -1000 HU is air
        intensity="Hounsfield units, -1000 is 0 and 1000 is 1, clipped",
        expects="(H, W) or (D, H, W) in Hounsfield units",
        mean=0.5,
        deviation=0.25,
        origin="chosen: air is -2, water 0, dense bone 2",
        refused=view_rules.CT,
        shows_from=-900.0,  # air is -1000, lung about -850
    ),
    "mr": Modality(
        family="mr",
        volumes=True,
        values=None,
        intensity="the volume's own percentiles, 0.5 is 0 and 99.5 is 1, clipped",
        expects="(H, W) or (D, H, W), any scale",
        mean=0.37,
        deviation=0.30,
        origin="measured: 130 hippocampi, 674 slices of brains, 56 volumes of many vendors",
        refused=view_rules.INSIDE_OF_A_BODY,
    ),
    "pet": Modality(
        family="pet",
        volumes=True,
        values=None,
        intensity="the volume's own percentiles, 0.5 is 0 and 99.5 is 1, clipped: uptake beside the same volume's; SUV where a "
        'study asks for it (`data.intensity = "suv"`)',
        expects="(H, W) or (D, H, W), any scale",
        mean=0.5,
        deviation=0.25,
        origin=_NEUTRAL,
        refused=view_rules.PET,
    ),
    "ultrasound": Modality(
        family="ultrasound",
        volumes=False,
        values=_DISPLAY,
        intensity="brightness as displayed, black 0, white 1; colour becomes its luminance; of a clip, the middle frame",
        expects=_GREY_PICTURE + ", or (H, W, 3) uint8 in RGB",
        mean=0.17,
        deviation=0.16,
        origin="measured: 26 stills of lungs",
        refused=view_rules.ULTRASOUND,
        dark_border=True,
    ),
    "angiogram": Modality(
        family="angiogram",
        volumes=False,
        values=_DISPLAY,
        intensity="brightness as displayed (the file's VOI table or window, MONOCHROME1 inverted), black 0, white 1; of a run, the "
        "middle frame",
        expects=_GREY_PICTURE,
        mean=0.5,
        deviation=0.25,
        origin=_NEUTRAL,
        refused=view_rules.INSIDE_OF_A_BODY,
    ),
    "photograph": Modality(
        family="photograph",
        volumes=False,
        values=_DISPLAY,
        channels=3,
        intensity=_IN_COLOUR,
        expects=_COLOUR_PICTURE,
        mean=0.5,
        deviation=0.25,
        origin=_NEUTRAL,
        refused=view_rules.PHOTOGRAPH,
    ),
    "fundus": Modality(
        family="photograph",
        volumes=False,
        values=_DISPLAY,
        channels=3,
        intensity=_IN_COLOUR,
        expects=_COLOUR_PICTURE,
        mean=0.24,
        deviation=0.29,
        origin="measured: 28 photographs of CHASE_DB1 (red 0.50, green 0.18, blue 0.03)",
        refused=view_rules.FUNDUS,
        dark_border=True,
    ),
    "pathology": Modality(
        family="photograph",
        volumes=False,
        values=_DISPLAY,
        channels=3,
        intensity=_IN_COLOUR,
        expects=_COLOUR_PICTURE,
        mean=0.5,
        deviation=0.25,
        origin=_NEUTRAL,
        refused=view_rules.PATHOLOGY,
    ),
}
"""By the name that a study gives them; what leaves here is in [0, 1], and the encoder standardises it. `secondary` captures have none:
they may show anything, so no view of them is known to be valid."""
