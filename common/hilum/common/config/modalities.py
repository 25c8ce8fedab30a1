"""The one list of modalities: what their values mean, and what becomes of them. No torch here."""

from dataclasses import dataclass

DISPLAY_WHITE = 65_535.0


@dataclass(frozen=True)
class Modality:
    """What sets one modality apart.

    Attributes:
        volumes: Whether it has volumes beside images.
        values: The values that become 0 and 1; what lies beyond is clipped. None where the scale is arbitrary, and each
            array's own percentiles serve.
        mean: About what a value in [0, 1] of tissue is; an encoder takes it away first, and divides by `deviation`.
        deviation: About how far values of tissue lie from `mean`.
        intensity: What becomes of its values, in words.
        expects: What an image of it is, in words.
    """

    volumes: bool
    values: tuple[float, float] | None
    mean: float
    deviation: float
    intensity: str
    expects: str

    @property
    def is_displayed(self) -> bool:
        """Whether values are brightness on a display, black to white."""
        return self.values == (0.0, DISPLAY_WHITE)


PERCENTILES = (0.5, 99.5)
"""Of an array with an arbitrary scale, what becomes 0 and 1."""

MODALITIES: dict[str, Modality] = {
    "radiograph": Modality(
        volumes=False,
        values=(0.0, DISPLAY_WHITE),
        mean=0.5,  # of 300 chest films of three sources 0.47 to 0.63, deviation 0.24
        deviation=0.25,
        intensity="brightness as displayed, bone bright (the file's VOI table or window, MONOCHROME1 inverted), black 0, white 1",
        expects="(H, W) as displayed, 0 black to 65535 white",
    ),
    "ct": Modality(
        volumes=True,
        values=(-1000.0, 1000.0),  # -1000 HU is air
        mean=0.3,  # between lung and soft tissue
        deviation=0.25,
        intensity="Hounsfield units, -1000 is 0 and 1000 is 1, clipped",
        expects="(H, W) or (D, H, W) in Hounsfield units",
    ),
    "mr": Modality(
        volumes=True,
        values=None,
        mean=0.25,  # of 56 volumes, what is not air 0.26, deviation 0.26
        deviation=0.25,
        intensity="the volume's own percentiles, 0.5 is 0 and 99.5 is 1, clipped",
        expects="(H, W) or (D, H, W), any scale",
    ),
}
"""By the catalogue's name of the family; what leaves here is in [0, 1], and the encoder standardises it."""
