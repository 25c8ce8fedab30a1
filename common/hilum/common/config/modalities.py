"""The one list of modalities: what their values mean, and what becomes of them. No torch here."""

from dataclasses import dataclass
from typing import Literal

DISPLAY_WHITE = 65_535.0


@dataclass(frozen=True)
class Modality:
    """What sets one modality apart.

    Attributes:
        volumes: Whether it has volumes beside images.
        values: The values that become 0 and 1; what lies beyond is clipped. None where the scale is arbitrary, and each
            array's own percentiles serve.
        intensity: What becomes of its values, in words.
        expects: What an image of it is, in words.
        scale: What becomes 0 and 1 where the scale is arbitrary: percentiles, or so many deviations about the mean.
        shows_from: The value from which a place shows something, and not the air around; a tenth of the way from 0 to 1,
            if none.
    """

    volumes: bool
    values: tuple[float, float] | None
    intensity: str
    expects: str
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

MODALITIES: dict[str, Modality] = {
    "radiograph": Modality(
        volumes=False,
        values=(0.0, DISPLAY_WHITE),
        intensity="brightness as displayed, bone bright (the file's VOI table or window, MONOCHROME1 inverted), black 0, white 1",
        expects="(H, W) as displayed, 0 black to 65535 white",
    ),
    "ct": Modality(
        volumes=True,
        values=(-1000.0, 1000.0),  # -1000 HU is air
        intensity="Hounsfield units, -1000 is 0 and 1000 is 1, clipped",
        expects="(H, W) or (D, H, W) in Hounsfield units",
        shows_from=-900.0,  # air is -1000, lung about -850
    ),
    "mr": Modality(
        volumes=True,
        values=None,
        intensity="the volume's own percentiles, 0.5 is 0 and 99.5 is 1, clipped",
        expects="(H, W) or (D, H, W), any scale",
    ),
}
"""By the catalogue's name of the family; what an encoder sees is not standardised after that."""
