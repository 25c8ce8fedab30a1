"""Several images at each position: copies are dropped, time points and the like told apart, the rest refused."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hilum.client.intake.planner.geometry import (
    FLOOR_MM,
    MIN_SLICES,
    TOLERANCE,
    Plane,
    along_normal,
    axes_of,
    tolerance_mm,
)
from hilum.client.intake.planner.grouping import Group, contrast_of, in_time, ordinals
from hilum.client.intake.planner.passes import numbered_sweeps, stated_passes, swept_passes
from hilum.client.intake.reasons import Reason, Skip

Pair = tuple[Plane, Plane]


@dataclass(frozen=True)
class _Field:
    """Something that may tell images at one position apart.

    Attributes:
        how: `value`: the same values stand at each position. `rank`: at each position the k-th value is time point k.
            `pass`: likewise, where the time points, or the positions, follow one another without overlap.
    """

    name: str
    get: Callable[[Plane], Any]
    how: Literal["value", "rank", "pass"]


def _contrast(name: str) -> Callable[[Plane], Any]:
    def get(plane: Plane) -> Any:
        return getattr(plane.frame.contrast, name)

    return get


# The last two are a last resort: they also change within one volume.
_FIELDS = (
    _Field("time", _contrast("temporal_position"), "value"),
    _Field("object", lambda plane: in_time(plane) if plane.source.pixels.frames > 1 else None, "value"),
    _Field("trigger", _contrast("trigger_time_ms"), "rank"),
    # Grouping has told apart what differs much; these tell apart what differs a little.
    _Field("inversion_step", _contrast("inversion_time_ms"), "value"),
    _Field("repetition_step", _contrast("repetition_time_ms"), "value"),
    _Field("agent", _contrast("contrast_agent"), "value"),
    _Field("acquisition", _contrast("acquisition_number"), "value"),
    _Field("pass", _contrast("acquisition_time_s"), "pass"),
)


def places_of(along_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return which position each plane lies at, counted along the normal; planes within the tolerance share one."""
    order = np.argsort(along_mm, kind="stable")
    gaps = np.diff(along_mm[order])
    wide = gaps[gaps > FLOOR_MM]
    distance = float(np.median(wide)) if len(wide) else 0.0
    places = np.zeros(len(along_mm), np.int64)
    places[order[1:]] = np.cumsum(gaps > max(TOLERANCE * distance, FLOOR_MM / 10))
    return places


def separate(group: Group) -> tuple[list[Group], list[Pair]]:
    """Parts of a group with one plane at each position, and the pairs that were taken for copies.

    The second plane of a pair is in no part.

    Raises:
        Skip: `MULTIPLE_TIMES` where images at one position differ in something that makes no complete grid;
            `LYING_GEOMETRY` where planes at one height lie apart sideways.
    """
    parts: list[Group] = []
    pairs: list[Pair] = []
    for station in _stations(group):
        kept, copies = _without_copies(station)
        numbered = (_numbered_passes(station) or numbered_sweeps(station)) if copies else None
        if numbered is not None:
            parts += numbered
            continue
        pairs += copies
        parts += _told_apart(kept, _FIELDS)
    return parts, pairs


def _stations(group: Group) -> list[Group]:
    """Parts that lie side by side, as the stations of a whole-body scan do; most often the group itself."""
    axes = axes_of(group.planes[0].orientation)
    along = along_normal(group.planes, axes)
    places = places_of(along)
    positions = np.array([plane.position for plane in group.planes])
    sideways = np.stack([positions @ axes.row, positions @ axes.column], axis=1)
    distance = float(np.ptp(along)) / max(int(places.max()), 1)
    limit = tolerance_mm(distance)
    low = np.full((int(places.max()) + 1, 2), np.inf)
    high = -low
    np.minimum.at(low, places, sideways)
    np.maximum.at(high, places, sideways)
    spread = float((high - low).max())
    if spread <= limit:
        return [group]
    cells = [tuple(np.rint(point / (10 * limit)).astype(int).tolist()) for point in sideways]
    parts = group.split("station", ordinals(cells))
    if min(len(part.planes) for part in parts) < MIN_SLICES:
        raise Skip(Reason.LYING_GEOMETRY)
    return parts


def _without_copies(group: Group) -> tuple[Group, list[Pair]]:
    """Set aside planes that nothing but their instance number tells from another at the same position.

    Frames of different multi-frame objects are not copies: an object is an image of its own.
    """
    axes = axes_of(group.planes[0].orientation)
    places = places_of(along_normal(group.planes, axes))
    if len(set(places.tolist())) == len(group.planes):
        return group, []
    first: dict[object, Plane] = {}
    pairs: list[Pair] = []
    for plane, place in zip(group.planes, places.tolist(), strict=True):
        single = plane.source.pixels.frames == 1
        same = (place, replace(contrast_of(plane), instance_number=None), None if single else plane.instance)
        if same in first:
            pairs.append((first[same], plane))
        else:
            first[same] = plane
    return replace(group, planes=tuple(first.values())), pairs


def _numbered_passes(group: Group) -> list[Group] | None:
    """Time points that only the instance numbers tell apart, as some vendors write functional series; or None.

    Instance numbers lie, so they are believed only where they could hardly be so by chance: each block of numbers
    holds every position once, and all blocks walk through the positions in one order.
    """
    numbers = [plane.frame.contrast.instance_number for plane in group.planes]
    known = [number for number in numbers if number is not None]
    single = all(plane.source.pixels.frames == 1 for plane in group.planes)
    if not single or len(set(known)) < len(group.planes):
        return None
    places = places_of(along_normal(group.planes, axes_of(group.planes[0].orientation))).tolist()
    labels = _ranks(known, places)
    if not _is_grid(labels, places) or not _follow(known, labels):
        return None
    walks: dict[int, list[int]] = defaultdict(list)
    for _number, label, place in sorted(zip(known, labels, places, strict=True)):
        walks[label].append(place)
    if len({tuple(walk) for walk in walks.values()}) > 1 or len(walks[1]) < MIN_SLICES:
        return None
    return group.split("number", labels)


def _told_apart(group: Group, fields: Sequence[_Field]) -> list[Group]:
    axes = axes_of(group.planes[0].orientation)
    places = places_of(along_normal(group.planes, axes)).tolist()
    if len(set(places)) == len(places):
        return [group]
    for number, one in enumerate(fields):
        labels = _grid_labels(group.planes, places, one)
        if labels is not None:
            rest = fields[number + 1 :]
            return [part for piece in group.split(one.name, labels) for part in _told_apart(piece, rest)]
    passes = stated_passes(group) or swept_passes(group)  # of unlike length, so they make no grid
    if passes is None:
        raise Skip(Reason.MULTIPLE_TIMES)
    return [part for piece in passes for part in _told_apart(piece, fields)]


def _grid_labels(planes: Sequence[Plane], places: Sequence[int], one: _Field) -> list[int] | None:
    """Return a label per plane where the field makes a complete grid of positions and labels; else None."""
    values = [one.get(plane) for plane in planes]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(set(known)) == 1:
        return None
    labels = ordinals(known) if one.how == "value" else _ranks(known, places)
    if len(set(labels)) == 1 or not _is_grid(labels, places):
        return None
    if one.how == "pass" and not (_follow(known, labels) or _follow(known, places)):
        return None
    return labels


def _ranks(values: Sequence[float], places: Sequence[int]) -> list[int]:
    at: dict[int, set[float]] = defaultdict(set)
    for value, place in zip(values, places, strict=True):
        at[place].add(value)
    order = {
        place: {value: rank for rank, value in enumerate(sorted(found), 1)} for place, found in at.items()
    }
    return [order[place][value] for value, place in zip(values, places, strict=True)]


def _is_grid(labels: Sequence[int], places: Iterable[int]) -> bool:
    """Tell whether each position has the same number of planes of each label."""
    counts = Counter(zip(labels, places, strict=True))
    every = set(places)
    per_label = {label: {counts[label, place] for place in every} for label in set(labels)}
    return all(len(found) == 1 for found in per_label.values())


def _follow(values: Sequence[float], blocks: Sequence[int]) -> bool:
    """Tell whether the values of each block lie wholly before or after those of every other."""
    spans: dict[int, tuple[float, float]] = {}
    for value, block in zip(values, blocks, strict=True):
        low, high = spans.get(block, (value, value))
        spans[block] = min(low, value), max(high, value)
    ordered = sorted(spans.values())
    return all(before[1] < after[0] for before, after in pairwise(ordered))
