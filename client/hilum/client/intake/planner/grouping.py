"""What can't belong to one volume is told apart first: other sizes, orientations, echoes, components, ...

Every plane gets a label per field: the ordinal of its value among the values of the series. Labels hold no value, so a
key made of them holds no identifier.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hilum.client.intake.instance import Contrast
from hilum.client.intake.planner.geometry import MIN_SLICES, Plane

Labels = tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Group:
    """Planes that may make one volume, with what told them from the rest."""

    planes: tuple[Plane, ...]
    labels: Labels = ()

    def split(self, name: str, ordinals: Sequence[int]) -> list["Group"]:
        """Return one group per ordinal, each with one more label."""
        found: dict[int, list[Plane]] = defaultdict(list)
        for plane, ordinal in zip(self.planes, ordinals, strict=True):
            found[ordinal].append(plane)
        return [
            replace(self, planes=tuple(found[ordinal]), labels=(*self.labels, (name, ordinal)))
            for ordinal in sorted(found)
        ]


@dataclass(frozen=True)
class _Near:
    """Numbers that count as one value: those within `absolute + relative * value` of a cluster's first."""

    get: Callable[[Plane], tuple[float, ...] | None]
    absolute: float = 0.0
    relative: float = 0.0


def _number(name: str) -> Callable[[Plane], tuple[float, ...] | None]:
    def get(plane: Plane) -> tuple[float, ...] | None:
        value = getattr(plane.frame.contrast, name)
        return None if value is None else (float(value),)

    return get


def contrast_of(plane: Plane) -> Contrast:
    """Return a frame's contrast; its image type is the file's where the frame has none of its own."""
    contrast = plane.frame.contrast
    return contrast if contrast.image_type else replace(contrast, image_type=image_type_of(plane))


def image_type_of(plane: Plane) -> tuple[str, ...]:
    """Return a frame's image type, or the file's where the frame has none of its own."""
    return plane.frame.contrast.image_type or plane.source.image_type


def in_time(plane: Plane) -> tuple[float | str, ...]:
    """Sorts whole objects by time as far as it is known. It only names objects, and tells none apart.

    The UID at the end makes it unique.
    """
    firsts = plane.source.frames[0].contrast
    known = (
        firsts.temporal_position,
        firsts.acquisition_number,
        firsts.acquisition_time_s,
        firsts.instance_number,
    )
    return (*(-1.0 if value is None else float(value) for value in known), plane.source.sop_uid)


# The order is the order of words in a key.
_EXACT: dict[str, Callable[[Plane], Hashable]] = {
    "family": lambda plane: plane.source.family,
    "localizer": lambda plane: plane.source.localizer,
    "frame_of_reference": lambda plane: plane.source.frame_of_reference or None,
    "size": lambda plane: plane.shape,
    "inverted": lambda plane: plane.source.inverted,
    "quantity": lambda plane: plane.frame.quantity,
    "vendor": lambda plane: plane.frame.contrast.vendor,
    "mosaic": lambda plane: in_time(plane) if plane.source.mosaic else (),
    "type": image_type_of,
    "component": lambda plane: plane.frame.contrast.component,
    "coil": lambda plane: plane.frame.contrast.coil,
    "echo": lambda plane: plane.frame.contrast.echo_number,
    "kernel": lambda plane: plane.frame.contrast.kernel or None,
}
_NEAR: dict[str, _Near] = {
    # A drift of these over 500 pixels stays below a tenth of a millimetre.
    "spacing": _Near(lambda plane: plane.spacing, relative=1e-4),
    "orientation": _Near(lambda plane: plane.orientation, absolute=1e-4),
    "echo_time": _Near(_number("echo_time_ms"), relative=0.01),
    "kvp": _Near(_number("kvp_kv"), relative=0.01),
    "flip": _Near(_number("flip_angle_deg"), relative=0.01),
    "b": _Near(_number("b_value"), absolute=1.0),
    "gradient": _Near(lambda plane: plane.frame.contrast.gradient, absolute=1e-3),
    # The heart beats as it likes: in gated studies these change from slice to slice.
    "repetition": _Near(_number("repetition_time_ms"), relative=0.25),
    "inversion": _Near(_number("inversion_time_ms"), relative=0.25),
}
# Said by the file to be apart, yet no more than a number where every plane has its own.
_SHARED: dict[str, Callable[[Plane], Hashable]] = {
    "stack": lambda plane: plane.frame.contrast.stack,
    "time": lambda plane: plane.frame.contrast.temporal_position,
}
# A plane that does not say counts with the others where all of those say the same.
_SILENT = frozenset({"frame_of_reference", "kernel", "kvp"})
GEOMETRIC = ("frame_of_reference", "size", "inverted", "vendor", "spacing")
"""A few planes that differ in one of these from the rest are of mixed geometry."""


def group_planes(planes: Sequence[Plane]) -> list[Group]:
    """Split where planes differ in what one volume has only one of.

    Args:
        planes: In an order that does not depend on the files' order.
    """
    groups = [Group(tuple(planes))]
    labels = {name: ordinals([get(plane) for plane in planes]) for name, get in _EXACT.items()}
    labels |= {
        name: _near_ordinals([near.get(plane) for plane in planes], near) for name, near in _NEAR.items()
    }
    labels |= {name: _with_the_silent(labels[name], planes, name) for name in _SILENT}
    if _is_frame_of_each_place(planes):
        labels["frame_of_reference"] = [1] * len(planes)
    for name, found in labels.items():
        groups = [part for _group, parts in _splits(groups, name, planes, found) for part in parts]
    for name, get in _SHARED.items():
        found = ordinals([get(plane) for plane in planes])
        groups = [
            part
            for group, parts in _splits(groups, name, planes, found)
            for part in ([group] if len(parts) == len(group.planes) else parts)
        ]
    return groups


def _with_the_silent(labels: list[int], planes: Sequence[Plane], name: str) -> list[int]:
    """Return the labels, of which the lowest stands for no value where there is such a plane; one for all where they agree."""
    get = _EXACT[name] if name in _EXACT else _NEAR[name].get
    said = {label for label, plane in zip(labels, planes, strict=True) if get(plane) is not None}
    return labels if len(said) > 1 else [1] * len(labels)


def _is_frame_of_each_place(planes: Sequence[Plane]) -> bool:
    """Tell whether no frame of reference (PS3.3 section C.7.4.1) holds slices at more than one position.

    It then relates no slice to another, as a frame must: its UID was made new for each file, as some de-identifiers
    do. Whether the slices make a volume is left to their geometry. Frames of several slices are believed.
    """
    slices = [plane for plane in planes if not plane.source.localizer and plane.source.frame_of_reference]
    places: dict[str, set[tuple[float, ...]]] = defaultdict(set)
    for plane in slices:
        places[plane.source.frame_of_reference].add(plane.position)
    return len(places) >= MIN_SLICES and all(len(found) == 1 for found in places.values())


def _splits(
    groups: Sequence[Group], name: str, planes: Sequence[Plane], found: Sequence[int]
) -> Iterator[tuple[Group, list[Group]]]:
    """Return every group, and what it falls into by a label that was found for each of the planes."""
    if len(set(found)) == 1:
        yield from ((group, [replace(group, labels=(*group.labels, (name, found[0])))]) for group in groups)
        return
    of_plane = {plane.id: ordinal for plane, ordinal in zip(planes, found, strict=True)}
    for group in groups:
        yield group, group.split(name, [of_plane[plane.id] for plane in group.planes])


def ordinals(values: Sequence[Any]) -> list[int]:
    """Return each value's place, from 1, among the sorted distinct ones; None comes first."""
    distinct = sorted(set(values), key=lambda value: (value is not None, value if value is not None else 0))
    place = {value: number for number, value in enumerate(distinct, 1)}
    return [place[value] for value in values]


def _near_ordinals(values: Sequence[tuple[float, ...] | None], near: _Near) -> list[int]:
    """Like `ordinals`, with values that lie near a cluster's first counted as one. No chains: a slow drift is seen."""
    clusters: list[tuple[float, ...] | None] = []
    place: dict[tuple[float, ...] | None, int] = {}
    for value in sorted(set(values), key=lambda value: (value is not None, value or ())):
        for number in range(len(clusters), 0, -1):
            if _is_near(value, clusters[number - 1], near):
                place[value] = number
                break
        else:
            clusters.append(value)
            place[value] = len(clusters)
    return [place[value] for value in values]


def _is_near(one: tuple[float, ...] | None, other: tuple[float, ...] | None, near: _Near) -> bool:
    if one is None or other is None or len(one) != len(other):
        return one is other
    return all(abs(a - b) <= near.absolute + near.relative * abs(b) for a, b in zip(one, other, strict=True))
