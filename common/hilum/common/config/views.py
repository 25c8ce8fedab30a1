"""How a study may change the views of its modality: ranges by name, and what it takes although the modality refuses it."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hilum.common.config.base import Section
from hilum.common.config.data import DataSection
from hilum.common.config.modalities import MODALITIES
from hilum.common.config.view_rules import COLOUR_ONLY, FLAT_ONLY, MAX_TILT_DEG

Chance = Annotated[float, Field(ge=0, le=1)]
_Area = Annotated[float, Field(gt=0, le=1)]
_Exponent = Annotated[float, Field(ge=0.1, le=10)]
_Factor = Annotated[float, Field(ge=0, le=4)]
_Strength = Annotated[float, Field(ge=0, le=1)]

_NOTHING = {"gamma": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0)}
_PAIRS = ("area", *_NOTHING)

_OPERATIONS = tuple(dict.fromkeys(name for facts in MODALITIES.values() for name in facts.refused))
if TYPE_CHECKING:
    Refusable = str
else:
    Refusable = Literal[_OPERATIONS]


class ViewRanges(Section):
    """Ranges of one recipe that take the place of the modality's; see `hilum.client.views.recipe.Recipe` for what they are."""

    area: Annotated[tuple[_Area, _Area], Field(strict=False)] | None = None
    tissue: Annotated[float, Field(ge=0, lt=1)] | None = None
    rotation_deg: Annotated[float, Field(ge=0, le=180)] | None = None
    horizontal_flip: Chance | None = None
    vertical_flip: Chance | None = None
    quarter_turns: Chance | None = None
    gamma: Annotated[tuple[_Exponent, _Exponent], Field(strict=False)] | None = None
    contrast: Annotated[tuple[_Factor, _Factor], Field(strict=False)] | None = None
    saturation: Annotated[tuple[_Factor, _Factor], Field(strict=False)] | None = None
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = None
    stain: _Strength | None = None
    bias_field: _Strength | None = None
    depth_gain: _Strength | None = None
    blur: Annotated[float, Field(ge=0, le=0.2)] | None = None
    blur_chance: Chance | None = None
    noise: _Strength | None = None
    speckle: _Strength | None = None

    @property
    def given(self) -> dict[str, float | tuple[float, float]]:
        """The ranges that are given, by name."""
        return self.model_dump(exclude_none=True)

    def inconsistent(self, table: str) -> str | None:
        """Return which of the ranges makes no sense by itself, and what to write instead; None if all do."""
        for name in _PAIRS:
            pair = self.given.get(name)
            if isinstance(pair, tuple) and pair[0] > pair[1]:
                return f"{table}.{name} = {list(pair)} ends before it begins; write the smaller number first"
        if (self.blur is None) != (self.blur_chance is None):
            return f"{table}.blur and {table}.blur_chance go together; write both, or neither"
        return None

    @property
    def active(self) -> dict[str, str]:
        """The operations that are asked for, and the name of the range that asks."""
        found = {name: name for name, value in self.given.items() if value not in (0, _NOTHING.get(name))}
        if self.rotation_deg is not None and self.rotation_deg > MAX_TILT_DEG:
            found.setdefault("quarter_turns", "rotation_deg")
        return found


class ViewsSection(Section):
    """Changes of the modality's two recipes.

    Attributes:
        allow: What the modality refuses and this study takes.
        crop: Of mild views: for methods that reconstruct, and for fine-tuning.
        strong: Of views that must disagree in all that does not matter.
    """

    allow: Annotated[tuple[Refusable, ...], Field(strict=False, max_length=len(_OPERATIONS))] = ()
    crop: ViewRanges | None = None
    strong: ViewRanges | None = None

    def misfit(self, data: DataSection) -> str | None:
        """Return why the images of a study can't have such views, and what to write instead; None if they can."""
        asked: set[str] = set()
        for table in ("crop", "strong"):
            ranges: ViewRanges | None = getattr(self, table)
            if ranges is None:
                continue
            if wrong := ranges.inconsistent(f"views.{table}"):
                return wrong
            for operation, name in sorted(ranges.active.items()):
                if wrong := self._invalid(operation, data):
                    return f"views.{table}.{name} = {getattr(ranges, name)} {wrong}"
            asked |= ranges.active.keys()
        for name in self.allow:
            if name not in data.facts.refused:
                return f'views.allow names {name}, which data.modality = "{data.modality}" does not refuse; leave it out'
            if name not in asked:
                return f"views.allow names {name}, and no range asks for it; write it under [views.crop] or [views.strong], or leave it out"
        return None

    def _invalid(self, name: str, data: DataSection) -> str | None:
        """Return why a range that changes something is no view, in words that go on from its name."""
        if name in COLOUR_ONLY and data.facts.channels == 1:
            return f'changes colours, and data.modality = "{data.modality}" is grey; leave it out'
        if name in FLAT_ONLY and data.dims != 2:  # noqa: PLR2004 - images
            return f"is for images, and data.dims = {data.dims}; leave it out"
        reason = data.facts.refused.get(name)
        if reason is None or name in self.allow:
            return None
        return (
            f'is no view of data.modality = "{data.modality}": {reason}; leave it out, or write views.allow = ["{name}"] to '
            "take it all the same"
        )
