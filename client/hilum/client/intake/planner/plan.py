"""Plan a series: which planes make which volume, and what is refused for which reason.

The purpose is that no wrong volume is made: what is not understood is refused.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from hilum.client.intake.instance import STACKED_FAMILIES, Instance
from hilum.client.intake.planner.geometry import MIN_SLICES, Plane, check_plane
from hilum.client.intake.planner.grouping import GEOMETRIC, Group, group_planes, ordinals
from hilum.client.intake.planner.ordering import Run, regular_runs
from hilum.client.intake.planner.passes import SWEPT_FAMILIES, may_be_several, stated_passes, swept_passes
from hilum.client.intake.planner.records import (
    Coverage,
    PlaneId,
    PlannedCine,
    PlannedImage,
    PlannedVolume,
    Quality,
    SeriesPlan,
)
from hilum.client.intake.planner.separating import Pair, separate
from hilum.client.intake.planner.tilt import fits_upright, sheared_affine, tilt_of, upright_grid
from hilum.client.intake.quarantine.rules import shows_text
from hilum.client.intake.reasons import Reason, Skip

_CINE_FAMILIES = frozenset({"ultrasound", "angiogram", "photograph", "secondary"})
_MANY_REASONS = (  # which one stands for an object whose frames were refused for several
    Reason.LYING_GEOMETRY,
    Reason.TOO_LARGE,
    Reason.MULTIPLE_TIMES,
    Reason.OVERLAPPING_PASSES,
    Reason.IRREGULAR_SPACING,
    Reason.UNSUPPORTED_MULTIFRAME,
    Reason.MISSING_ATTRIBUTE,
    Reason.UNSUPPORTED_PIXELS,
    Reason.MIXED_GEOMETRY,
    Reason.LOCALIZER,
    Reason.TOO_FEW_SLICES,
)


_FAULTS = frozenset({Reason.CONTRADICTING_COPIES, Reason.MISSING_ATTRIBUTE, Reason.LYING_GEOMETRY})
"""Of single slices, whose volume then lacks them."""


@dataclass(frozen=True, eq=False)
class _Stack:
    """A regular run with all that is told of it."""

    run: Run
    group: Group
    labels: tuple[tuple[str, int], ...]
    pairs: tuple[Pair, ...]
    number: int
    numbers: int
    left_out: int


@dataclass(eq=False)
class _Ledger:
    """What happened to each plane and each instance."""

    refused_planes: dict[PlaneId, Reason] = field(default_factory=dict)
    refused: dict[int, Reason] = field(default_factory=dict)
    copies: list[tuple[int, int]] = field(default_factory=list)
    dropped: dict[PlaneId, PlaneId] = field(default_factory=dict)

    def refuse(self, planes: Sequence[Plane], reason: Reason) -> None:
        self.refused_planes.update({plane.id: reason for plane in planes})


def plan_series(instances: Sequence[Instance]) -> SeriesPlan:
    """Order a series by geometry, tell its volumes apart, and refuse what makes none.

    Slices are ordered by their position along the normal (PS3.3 section C.7.6.2.1.1); instance numbers are not asked.
    The result does not depend on the order of the files.

    Args:
        instances: All of one series, of any number of frames each. A mosaic has one frame per tile.
    """
    ledger = _Ledger()
    stacked: list[Plane] = []
    images: list[PlannedImage] = []
    cines: list[PlannedCine] = []
    for index in _unique(instances, ledger):
        instance = instances[index]
        if instance.localizer:
            ledger.refused[index] = Reason.LOCALIZER
        elif not instance.frames:
            ledger.refused[index] = Reason.UNSUPPORTED_MULTIFRAME
        elif is_stacked(instance) and shows_text(instance):
            ledger.refused[index] = Reason.TEXT_IN_SLICE
        elif is_stacked(instance):
            stacked += [Plane(index, instance, frame) for frame in instance.frames]
        elif instance.pixels.frames == 1:
            images.append(PlannedImage(instance.family, (index, instance.frames[0].index)))
        elif instance.family in _CINE_FAMILIES:
            frames = sorted(frame.index for frame in instance.frames)
            cines.append(
                PlannedCine(
                    instance.family, tuple((index, frame) for frame in frames), instance.frame_time_ms
                )
            )
        else:
            ledger.refused[index] = Reason.UNSUPPORTED_MULTIFRAME
    volumes = _plan_volumes(stacked, instances, ledger)
    _settle(stacked, volumes, ledger)
    _name_what_is_left(instances, ledger.refused)
    return SeriesPlan(
        volumes, tuple(images), tuple(cines), dict(sorted(ledger.refused.items())), tuple(ledger.copies)
    )


def _unique(instances: Sequence[Instance], ledger: _Ledger) -> Iterator[int]:
    """Return the instances without copies of one SOP instance.

    Files that share the UID and say different things can't both be true, so none of them is taken; but one that could be
    no slice at all is damaged, and speaks against none that could.
    """
    by_uid: dict[str, list[int]] = defaultdict(list)
    for index, instance in enumerate(instances):
        by_uid[instance.sop_uid].append(index)
    for indices in by_uid.values():
        kept, *copies = indices
        if not _agree(instances, indices):
            faults = {index: _fault(instances[index]) for index in indices}
            kept, *copies = [index for index, fault in faults.items() if fault is None] or indices
            ledger.refused.update(
                {index: fault for index, fault in faults.items() if fault and index not in (kept, *copies)}
            )
        if not _agree(instances, indices := [kept, *copies]):
            ledger.refused.update(dict.fromkeys(indices, Reason.CONTRADICTING_COPIES))
            continue
        ledger.refused.update(dict.fromkeys(copies, Reason.DUPLICATE))
        ledger.copies += [(kept, copy) for copy in copies]
        yield kept


def _agree(instances: Sequence[Instance], indices: Sequence[int]) -> bool:
    return all(_same_header(instances[indices[0]], instances[index]) for index in indices[1:])


def _fault(instance: Instance) -> Reason | None:
    """Why a slice has no place in the patient that could be true; None where it has, or needs none."""
    if instance.family not in STACKED_FAMILIES:
        return None
    try:
        for frame in instance.frames:
            check_plane(Plane(0, instance, frame))
    except Skip as skip:
        return skip.reason
    return None


def _same_header(one: Instance, other: Instance) -> bool:
    """Tell whether two files agree, but for how their pixels are compressed."""
    geometry = (one.pixels.rows, one.pixels.columns, one.pixels.frames, one.pixels.samples)
    again = (other.pixels.rows, other.pixels.columns, other.pixels.frames, other.pixels.samples)
    return one.frames == other.frames and geometry == again


def is_stacked(instance: Instance) -> bool:
    """Tell whether an object's frames are slices of a volume, if of any; an image otherwise, or a cine."""
    return instance.family in STACKED_FAMILIES or _is_placed(instance)


def _is_placed(instance: Instance) -> bool:
    """Tell whether an object of another family is a volume: every frame has a place, and they are not all the same."""
    places = {frame.position_mm for frame in instance.frames}
    return (
        instance.pixels.frames > 1
        and instance.pixels.samples == 1
        and len(places) > 1
        and all(frame.position_mm and frame.orientation and frame.spacing_mm for frame in instance.frames)
    )


def _plan_volumes(
    stacked: Sequence[Plane], instances: Sequence[Instance], ledger: _Ledger
) -> tuple[PlannedVolume, ...]:
    sound: list[Plane] = []
    for plane in stacked:
        try:
            check_plane(plane)
        except Skip as skip:
            ledger.refuse([plane], skip.reason)
        else:
            sound.append(plane)
    sound.sort(key=lambda plane: (plane.position, plane.source.sop_uid, plane.frame.index))
    groups = group_planes(sound) if sound else []
    stacks = [stack for group in groups for stack in _plan_group(group, ledger)]
    _name_the_leftovers(groups, stacks, ledger)
    stacks.sort(key=lambda stack: stack.labels)
    names, split_on = _keys([stack.labels for stack in stacks])
    left_out = Counter(index for index, _frame in ledger.refused_planes)
    return tuple(
        _volume(stack, name, split_on, instances, ledger, left_out)
        for stack, name in zip(stacks, names, strict=True)
    )


def _plan_group(group: Group, ledger: _Ledger) -> list[_Stack]:
    """Return the regular stacks of planes that differ in nothing a volume has only one of."""
    if len(group.planes) < MIN_SLICES:
        ledger.refuse(group.planes, Reason.TOO_FEW_SLICES)
        return []
    try:
        parts, pairs = separate(group)
    except Skip as skip:
        ledger.refuse(group.planes, skip.reason)
        return []
    ledger.dropped.update({copy.id: kept.id for kept, copy in pairs})
    stacks: list[_Stack] = []
    for part in parts:
        stacks += _plan_part(part, pairs, ledger)
    return stacks


def _plan_part(part: Group, pairs: Sequence[Pair], ledger: _Ledger) -> list[_Stack]:
    """Return the regular runs of one part; where it is interrupted, its acquisitions may each be whole."""
    if _only_one_place(part, pairs):
        ledger.refuse(part.planes, Reason.LYING_GEOMETRY)
        return []
    runs: list[Run] = []
    refusal: Reason | None = None
    pieces = stated_passes(part)
    if pieces is None:
        try:
            runs = regular_runs(part.planes)
        except Skip as skip:
            refusal = skip.reason
        pieces = _whole_acquisitions(part) if len(runs) != 1 else None
        if pieces is None and (len(runs) != 1 or part.planes[0].source.family in SWEPT_FAMILIES):
            pieces = swept_passes(part)
    if pieces is not None:
        return [stack for piece in pieces for stack in _plan_part(piece, pairs, ledger)]
    if refusal is not None:
        ledger.refuse(part.planes, refusal)
        return []
    return _stacks_of(part, pairs, runs, ledger)


def _stacks_of(part: Group, pairs: Sequence[Pair], found: Sequence[Run], ledger: _Ledger) -> list[_Stack]:
    """Return the runs of a part that are volumes."""
    doubtful = [run for run in found if may_be_several(run, found)]
    for run in doubtful:
        ledger.refuse(run.planes, Reason.OVERLAPPING_PASSES)
    runs = [run for run in found if run not in doubtful]
    for run in runs:
        tilt = tilt_of(run)
        if tilt is not None and not fits_upright((len(run.planes), *run.planes[0].shape), tilt):
            ledger.refuse(part.planes, Reason.TOO_LARGE)
            return []
    used = {plane.id: number for number, run in enumerate(runs, 1) for plane in run.planes}
    in_doubt = {plane.id for run in doubtful for plane in run.planes}
    lost = [plane for plane in part.planes if plane.id not in used]
    ledger.refuse([plane for plane in lost if plane.id not in in_doubt], Reason.IRREGULAR_SPACING)
    return [
        _Stack(
            run,
            part,
            (*part.labels, ("run", number)) if len(runs) > 1 else part.labels,
            tuple(pair for pair in pairs if used.get(pair[0].id) == number),
            number if len(runs) > 1 or lost else 0,
            len(runs),
            len(lost),
        )
        for number, run in enumerate(runs, 1)
    ]


def _only_one_place(part: Group, pairs: Sequence[Pair]) -> bool:
    """Tell whether four or more planes without any difference claim one position: then the positions are made up."""
    kept = {plane.id for plane in part.planes}
    copies = sum(pair[0].id in kept for pair in pairs)
    return len(part.planes) == 1 and copies + 1 >= MIN_SLICES


def _whole_acquisitions(part: Group) -> list[Group] | None:
    """Return the acquisitions of an irregular stack, where each of them is regular; else None."""
    numbers = [plane.frame.contrast.acquisition_number for plane in part.planes]
    if None in numbers or len(set(numbers)) == 1:
        return None
    pieces = part.split("acquisition", ordinals(numbers))
    try:
        whole = all(len(regular_runs(piece.planes)[0].planes) == len(piece.planes) for piece in pieces)
    except Skip:
        return None
    return pieces if whole else None


def _name_the_leftovers(groups: Sequence[Group], stacks: Sequence[_Stack], ledger: _Ledger) -> None:
    """Say why a group is too small: a scout between the slices, or slices of another geometry."""
    if len(groups) < 2:  # noqa: PLR2004 - one group alone is simply too small
        return
    planned = [dict(stack.group.labels) for stack in stacks]
    for group in groups:
        if len(group.planes) >= MIN_SLICES:
            continue
        labels = dict(group.labels)
        others = planned or [dict(other.labels) for other in groups if other is not group]
        if all(labels["orientation"] != other["orientation"] for other in others):
            ledger.refuse(group.planes, Reason.LOCALIZER if planned else Reason.MIXED_GEOMETRY)
        elif all(any(labels[name] != other[name] for name in GEOMETRIC) for other in others):
            ledger.refuse(group.planes, Reason.MIXED_GEOMETRY)


def _name_what_is_left(instances: Sequence[Instance], refused: dict[int, Reason]) -> None:
    """Say of slices that are too few whether they were enough with those of their size that have a fault of their own."""
    few: dict[Hashable, list[int]] = defaultdict(list)
    faulty: dict[Hashable, set[str]] = defaultdict(set)
    for index, reason in refused.items():
        one = instances[index]
        kind = one.family, one.pixels.rows, one.pixels.columns
        if reason == Reason.TOO_FEW_SLICES:
            few[kind].append(index)
        elif reason in _FAULTS:
            faulty[kind].add(one.sop_uid)
    for size, indices in few.items():
        if size in faulty and len(indices) + len(faulty[size]) >= MIN_SLICES:
            refused.update(dict.fromkeys(indices, Reason.TOO_FEW_LEFT))


def _keys(labels: Sequence[tuple[tuple[str, int], ...]]) -> tuple[list[str], tuple[str, ...]]:
    """Return a key per volume, of the fewest labels that tell the volumes apart, numbered among them.

    Labels that tell nothing more than those before them are left away, so a key does not change when slices that make
    no volume are added.
    """
    tables = [dict(one) for one in labels]
    names: list[str] = []
    for name in dict.fromkeys(name for one in labels for name, _ordinal in one):
        with_it = {tuple(table.get(other, 0) for other in (*names, name)) for table in tables}
        without = {tuple(table.get(other, 0) for other in names) for table in tables}
        if len(with_it) > len(without):
            names.append(name)
    assert len({tuple(table.get(name, 0) for name in names) for table in tables}) == len(tables)
    numbered = {name: ordinals([table.get(name, 0) for table in tables]) for name in names}
    keys = [",".join(f"{name}={numbered[name][index]}" for name in names) for index in range(len(tables))]
    return keys, tuple(names)


def _volume(
    stack: _Stack,
    key: str,
    split_on: tuple[str, ...],
    instances: Sequence[Instance],
    ledger: _Ledger,
    left_out: Counter[int],
) -> PlannedVolume:
    run = stack.run
    first = run.planes[0]
    tilt = tilt_of(run)
    shape, affine = (len(run.planes), *first.shape), sheared_affine(run)
    if tilt is not None:
        shape, affine = upright_grid(shape, tilt)
    used = {plane.instance for plane in run.planes}
    pairs = tuple((kept.id, copy.id) for kept, copy in stack.pairs)
    pairs += tuple(
        ((kept, plane.frame.index), (copy, plane.frame.index))
        for kept, copy in ledger.copies
        for plane in run.planes
        if plane.instance == kept
    )
    return PlannedVolume(
        key=key,
        family=first.source.family,
        planes=tuple(plane.id for plane in run.planes),
        shape=shape,
        spacing_mm=(run.distance_mm, *first.spacing),
        affine=affine,
        tilt=tilt,
        verify_equal=pairs,
        quality=Quality(
            planes=len(run.planes),
            dropped_duplicates=len(pairs),
            tilt_deg=run.tilt_deg,
            spacing_deviation_mm=run.deviation_mm,
            coverage=_coverage(first.frame.thickness_mm, run.distance_mm),
            thickness_mm=first.frame.thickness_mm,
            frames_left_out=sum(left_out[index] for index in used if instances[index].pixels.frames > 1),
            run=stack.number,
            runs=stack.numbers,
            slices_left_out=stack.left_out,
            split_on=split_on,
        ),
    )


def _coverage(thickness_mm: float | None, distance_mm: float) -> Coverage:
    if thickness_mm is None or not thickness_mm > 0:
        return "unknown"
    if abs(thickness_mm - distance_mm) <= 0.01 * distance_mm:
        return "contiguous"
    return "overlapping" if thickness_mm > distance_mm else "gapped"


def _settle(stacked: Sequence[Plane], volumes: Sequence[PlannedVolume], ledger: _Ledger) -> None:
    """Give each instance that is in no volume the reason of its frames."""
    used = {index for volume in volumes for index, _frame in volume.planes}
    found: dict[int, set[Reason]] = defaultdict(set)
    for plane in stacked:
        if plane.instance in used:
            continue
        # Either refused itself, or a copy of a plane that is in a volume or was refused.
        original = ledger.dropped.get(plane.id, plane.id)
        found[plane.instance].add(ledger.refused_planes.get(original, Reason.DUPLICATE))
    for index, reasons in found.items():
        listed = (one for one in _MANY_REASONS if one in reasons)
        ledger.refused[index] = next(listed, min(reasons - {Reason.DUPLICATE}, default=Reason.DUPLICATE))
