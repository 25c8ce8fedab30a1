"""Which images a study is about, and what of each an encoder sees.

Shapes: D slices, H rows, W columns.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hilum.common.config.base import Section
from hilum.common.config.modalities import (
    MODALITIES,
    SUV_SHOWS_FROM,
    SUV_WINDOW,
    Z_SCORE_REACH,
    Modality,
)

if TYPE_CHECKING:
    ModalityName = str
else:
    ModalityName = Literal[tuple(MODALITIES)]

_LEAST_EDGE, _LARGEST_EDGE = 8, 1024
_VOLUME_AXES = 3


def _size(given: Any) -> Any:
    """Refuse what is no size in one line, where a union would take one for each of its kinds."""
    edges = given if isinstance(given, list | tuple) else [given]
    whole = all(type(edge) is int and _LEAST_EDGE <= edge <= _LARGEST_EDGE for edge in edges)
    if not whole or len(edges) != (_VOLUME_AXES if edges is given else 1):
        raise ValueError(
            f"data.image_size = {given!r}: expected a whole number from {_LEAST_EDGE} to {_LARGEST_EDGE}, or of patches three of "
            "them, [D, H, W]"
        )
    return given


def _each_axis(given: Any) -> Any:
    """Take one distance for all three."""
    if given is None or (isinstance(given, list | tuple) and len(given) == _VOLUME_AXES):
        return given
    if type(given) in (int, float):
        return (given,) * _VOLUME_AXES
    raise ValueError(
        f"data.spacing_mm = {given!r}: expected millimetres, one number or three of them, [D, H, W]"
    )


Edge = Annotated[int, Field(ge=_LEAST_EDGE, le=_LARGEST_EDGE)]
ImageSize = Annotated[Edge | Annotated[tuple[Edge, Edge, Edge], Field(strict=False)], BeforeValidator(_size)]
Millimetres = Annotated[float, Field(ge=0.05, le=100)]
Spacing = Annotated[
    Annotated[tuple[Millimetres, Millimetres, Millimetres], Field(strict=False)] | None,
    BeforeValidator(_each_axis),
]
Hounsfield = Annotated[float, Field(ge=-32_768, le=32_767)]
Suv = Annotated[float, Field(ge=0, le=1000)]


def _usual_cut(given: dict[str, Any]) -> Literal["whole", "patches"]:
    return "patches" if given.get("dims") == _VOLUME_AXES else "whole"


def _usual_spacing(given: dict[str, Any]) -> tuple[float, float, float] | None:
    return (1.0, 1.0, 1.0) if given.get("cut") == "patches" else None


def _usual_number(given: dict[str, Any]) -> int | None:
    return None if given.get("cut") == "whole" else 4


class DataSection(Section):
    """Which images, and at what size the encoder sees them.

    Attributes:
        dims: Of what the encoder sees.
        cut: What it sees of each: in 3D `patches` of a volume, unless a `whole` one is to be scaled into a cube; in 2D a
            `whole` image, or `slices` of a volume as images.
        image_size: Edge in pixels or voxels; of patches, D, H and W may differ.
        spacing_mm: Of patches: what volumes are resampled to, D, H and W.
        per_volume: Patches or slices of each volume in an epoch.
        window_hu: Of CT: the values that become 0 and 1; the modality's, if none.
        intensity: Of a modality without units: what becomes 0 and 1; percentiles, if none. Of PET also `suv`: standardized
            uptake by body weight, and volumes whose files don't bear it out are left out.
        window_suv: With `intensity = "suv"`: the values that become 0 and 1; 0 and 10, if none.
    """

    modality: ModalityName
    dims: Literal[2, 3] = 2
    cut: Literal["whole", "patches", "slices"] = Field(default_factory=_usual_cut)
    image_size: ImageSize = 64
    spacing_mm: Spacing = Field(default_factory=_usual_spacing)
    per_volume: Annotated[int, Field(ge=1, le=1024)] | None = Field(default_factory=_usual_number)
    window_hu: Annotated[tuple[Hounsfield, ...], Field(strict=False, min_length=2, max_length=2)] | None = (
        None
    )
    intensity: Literal["percentiles", "zscore", "suv"] | None = None
    window_suv: Annotated[tuple[Suv, ...], Field(strict=False, min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _says_what_it_can(self) -> Self:
        wrong = [problem for applies, problem in (*self._of_cut(), *self._of_values()) if applies]
        if wrong:
            raise ValueError(wrong[0])
        return self

    def _of_cut(self) -> list[tuple[bool, str]]:
        """Return what may be wrong with how images are cut: whether it is, and what to write instead."""
        volumes = self.dims == _VOLUME_AXES
        cut, modality = f'data.cut = "{self.cut}"', f'data.modality = "{self.modality}"'
        return [
            (
                self.cut == "patches" and not volumes,
                f'{cut} takes cubes out of volumes; write data.dims = 3, or data.cut = "slices"',
            ),
            (
                self.cut == "slices" and volumes,
                f'{cut} takes slices of volumes as images; write data.dims = 2, or data.cut = "patches"',
            ),
            (
                self.cut == "slices" and not self.facts.volumes,
                f"{cut} asks for volumes, and {modality} has images alone; leave it out",
            ),
            (
                isinstance(self.image_size, tuple) and self.cut != "patches",
                f"data.image_size = {list(self.view_size)} is of patches, and {cut} fills one edge; write one number",
            ),
            (
                self.spacing_mm is not None and self.cut != "patches",
                f"data.spacing_mm is of patches, and {cut} scales to data.image_size; leave it out",
            ),
            (
                # A study may come as a table that says null, which TOML can't.
                (self.spacing_mm is None and self.cut == "patches")
                or (self.per_volume is None and self.cut != "whole"),
                f"{cut} needs data.per_volume, and of patches data.spacing_mm; leave them out for the usual ones",
            ),
            (
                self.per_volume is not None and self.cut == "whole",
                "data.per_volume counts patches or slices, and here each image is taken whole; leave it out",
            ),
        ]

    def _of_values(self) -> list[tuple[bool, str]]:
        """Return what may be wrong with what values become."""
        modality, window, uptake = f'data.modality = "{self.modality}"', self.window_hu, self.window_suv
        in_suv = 'data.intensity = "suv"'
        return [
            (
                window is not None and self.modality != "ct",
                f"data.window_hu is of CT, and {modality}; leave it out",
            ),
            (
                window is not None and window[0] >= window[1],
                f"data.window_hu = {list(window or ())}: expected the lower value first, such as [-160, 240]",
            ),
            (
                self.intensity is not None and MODALITIES[self.modality].values is not None,
                f"data.intensity is of values without a unit, and those of {modality} have one; leave it out",
            ),
            (
                self.in_suv and self.modality != "pet",
                f"{in_suv} is of PET, and {modality}; leave it out",
            ),
            (
                self.in_suv and self.cut == "whole",
                f'{in_suv} is of volumes in patches or slices; write data.dims = 3, or data.cut = "slices"'
                if self.dims != _VOLUME_AXES
                else f'{in_suv} is of volumes in patches or slices; write data.cut = "patches"',
            ),
            (
                uptake is not None and not self.in_suv,
                f"data.window_suv is of values in SUV; write {in_suv} beside it, or leave it out",
            ),
            (
                uptake is not None and uptake[0] >= uptake[1],
                f"data.window_suv = {list(uptake or ())}: expected the lower value first, such as [0, 10]",
            ),
        ]

    @property
    def in_suv(self) -> bool:
        """Whether values are standardized uptake by body weight."""
        return self.intensity == "suv"

    @property
    def facts(self) -> Modality:
        """What sets the modality apart, with this study's window or scale."""
        facts = MODALITIES[self.modality]
        if self.window_hu is not None:
            low, high = self.window_hu
            words = f"Hounsfield units, {low:g} is 0 and {high:g} is 1, clipped"
            return replace(facts, values=(low, high), intensity=words)
        if self.in_suv:
            low, high = self.window_suv or SUV_WINDOW
            words = f"standardized uptake by body weight (SUVbw), {low:g} is 0 and {high:g} is 1, clipped"
            return replace(
                facts,
                values=(low, high),
                intensity=words,
                expects="(H, W) or (D, H, W) in SUV by body weight",
                mean=min(max(1 - low, 0) / (high - low), 1),
                deviation=1 / (high - low),
                origin="chosen: uptake that is the same everywhere is SUV 1",
                shows_from=SUV_SHOWS_FROM,
            )
        if self.intensity == "zscore":
            words = (
                "the volume's own mean and deviation over what is not background, "
                f"{Z_SCORE_REACH:g} deviations below the mean are 0 and as many above it 1, clipped"
            )
            # A deviation of the volume's own is 1 / (2 * reach) of the range.
            return replace(facts, scale="zscore", intensity=words, mean=0.5, deviation=0.5 / Z_SCORE_REACH)
        return facts

    @property
    def view_size(self) -> tuple[int, ...]:
        """Edges of what the encoder sees, H W or D H W."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size,) * self.dims

    @property
    def block_size(self) -> tuple[int, ...]:
        """Edges of what views are made of: a quarter more than the view, so that crops keep real detail."""
        return tuple(edge + edge // 4 for edge in self.view_size)

    @property
    def store_size(self) -> int:
        """Edge of the prepared arrays where images are taken whole."""
        return max(self.block_size)
