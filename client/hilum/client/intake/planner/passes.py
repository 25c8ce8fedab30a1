"""Several passes over one region in one series, at positions that lie between one another.

A pass is one sweep along the normal. Slices of several passes can look like one stack of finer slices, so what tells
passes apart is asked before geometry is believed, and a stack that could as well be several is believed only where
something runs along it in one sweep.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import mode
from typing import Any

import numpy as np

from hilum.client.intake.instance import Family
from hilum.client.intake.planner.geometry import MIN_SLICES, Plane, along_normal, axes_of, tolerance_mm
from hilum.client.intake.planner.grouping import Group, ordinals
from hilum.client.intake.planner.ordering import Run, regular_runs
from hilum.client.intake.reasons import Skip

SWEPT_FAMILIES: frozenset[Family] = frozenset({"ct", "pet"})
"""Whose slices are made in the order in which they lie. MR measures every other slice first, in one pass."""

_SHORT_SHARE = 1 / 3  # of the slices may be in passes too short for a volume, as slices that were taken again
_PASSES_IN_DOUBT = (2, 3)
_ALTERNATING_SHARE = 1 / 4  # of the steps change the thickness; a stack of two parts changes it once
_RATIO_TOLERANCE = 0.01


@dataclass(frozen=True)
class _Teller:
    """Something that may tell passes apart.

    Attributes:
        is_ordered: Values follow one another in time, so one pass may have many of them.
    """

    name: str
    get: Callable[[Plane], Any]
    is_ordered: bool = True


_AGENT = _Teller("agent", lambda plane: plane.frame.contrast.contrast_agent, is_ordered=False)
_ACQUISITION = _Teller("acquisition", lambda plane: plane.frame.contrast.acquisition_number)
_NUMBER = _Teller("number_sweep", lambda plane: plane.frame.contrast.instance_number)
_SWEEPS = (
    _Teller("trigger_sweep", lambda plane: plane.frame.contrast.trigger_time_ms),
    _Teller("time_sweep", lambda plane: plane.frame.contrast.acquisition_time_s),
    _NUMBER,
)


def stated_passes(group: Group) -> list[Group] | None:
    """Return the passes that the files themselves call other acquisitions, or made with another contrast agent.

    Acquisitions that follow one another along the normal are one pass, as when the table moves between them.

    Returns:
        Groups that overlap along the normal; None where nothing says that there are several.
    """
    for teller in (_AGENT, _ACQUISITION):
        values = [teller.get(plane) for plane in group.planes]
        if None in values or len(set(values)) in {1, len(values)}:
            continue
        passes = _passes(group, teller, values)
        if passes is not None and 2 * sum(map(_in_runs, passes)) >= len(group.planes):
            return passes
    return None


def swept_passes(group: Group) -> list[Group] | None:
    """Return the passes that trigger times, times or instance numbers show by their order; else None.

    They also change within one pass, and instance numbers lie. So they are believed only where they could hardly be so
    by chance: sorted by them, the slices walk along the normal in equal steps, again and again.
    """
    acquisitions = _Teller("acquisition_sweep", _ACQUISITION.get)
    return next((found for teller in (acquisitions, *_SWEEPS) if (found := _swept(group, teller))), None)


def numbered_sweeps(group: Group) -> list[Group] | None:
    """Return passes of a volume's length each that only the instance numbers tell apart; else None."""
    passes = _swept(group, _NUMBER)
    return passes if passes and min(len(one.planes) for one in passes) >= MIN_SLICES else None


def may_be_several(run: Run, others: Sequence[Run]) -> bool:
    """Tell whether a regular run could be several passes, shifted by a half or a third of their step.

    So it looks where slices are two or three times as thick as their distance, or, where no thickness is told, where
    the run goes on in such steps. It is one pass where its instance numbers or its times run along it, unless thick and
    thin slices lie between one another.
    """
    told = [mm for plane in run.planes if (mm := plane.frame.thickness_mm) is not None and mm > 0]
    if _alternate(told):
        return True
    if run.planes[0].source.family not in SWEPT_FAMILIES or _runs_along(run):
        return False
    wider = [mode(told)] if told else [other.distance_mm for other in others if other is not run]
    ratios = [width / run.distance_mm for width in wider]
    return any(abs(ratio / times - 1) <= _RATIO_TOLERANCE for ratio in ratios for times in _PASSES_IN_DOUBT)


def _alternate(told_mm: Sequence[float]) -> bool:
    """Tell whether slices of two thicknesses lie between one another, enough of each for a volume.

    Args:
        told_mm: In the order of the slices. One that tells none counts with those beside it.
    """
    is_thick = [thickness > min(told_mm) * (1 + _RATIO_TOLERANCE) for thickness in told_mm]
    if min(sum(is_thick), len(is_thick) - sum(is_thick)) < MIN_SLICES:
        return False
    changes = sum(before != after for before, after in pairwise(is_thick))
    return changes > _ALTERNATING_SHARE * len(is_thick)


def _runs_along(run: Run) -> bool:
    for get in (_NUMBER.get, lambda plane: plane.frame.contrast.acquisition_time_s):
        values = [get(plane) for plane in run.planes]
        if None not in values:
            steps = [after - before for before, after in pairwise(values)]
            if all(step > 0 for step in steps) or all(step < 0 for step in steps):
                return True
    return False


def _swept(group: Group, teller: _Teller) -> list[Group] | None:
    values = [teller.get(plane) for plane in group.planes]
    if None in values or (teller is _NUMBER and len(set(values)) < len(values)):
        return None
    passes = _passes(group, teller, values)
    if passes is None or not all(_is_regular(one.planes) for one in passes):
        return None
    short = sum(len(one.planes) for one in passes if len(one.planes) < MIN_SLICES)
    return passes if short <= _SHORT_SHARE * len(group.planes) else None


def _passes(group: Group, teller: _Teller, values: Sequence[Any]) -> list[Group] | None:
    """Return the group by a teller's values, where these give several passes over one region."""
    along = along_normal(group.planes, axes_of(group.planes[0].orientation)).tolist()
    labels = _sweeps(along, values) if teller.is_ordered else ordinals(values)
    spans: dict[int, tuple[float, float]] = {}
    for height, label in zip(along, labels, strict=True):
        low, high = spans.get(label, (height, height))
        spans[label] = min(low, height), max(high, height)
    ordered = sorted(spans.values())
    if not any(after[0] <= before[1] for before, after in pairwise(ordered)):
        return None
    several_each = teller is _ACQUISITION and len(spans) < len(set(values))
    return group.split(f"{teller.name}s" if several_each else teller.name, labels)


def _sweeps(along_mm: Sequence[float], values: Sequence[Any]) -> list[int]:
    """Return the pass of each slice, from 1, by heights and values that rise with time."""
    labels = [0] * len(values)
    number, low, high = 0, 0.0, 0.0
    for walk in _walks(along_mm, values):
        heights = [along_mm[index] for index in walk]
        first, last = min(heights), max(heights)
        if number == 0 or not (last < low or first > high):
            number, low, high = number + 1, first, last
        low, high = min(low, first), max(high, last)
        for index in walk:
            labels[index] = number
    return labels


def _walks(along_mm: Sequence[float], values: Sequence[Any]) -> list[list[int]]:
    """Slices that follow one another in equal steps, and slices that share a value, in the order of values."""
    order = sorted(range(len(values)), key=lambda index: (values[index], along_mm[index]))
    walks: list[list[int]] = []
    for _value, alike in groupby(order, key=lambda index: values[index]):
        piece = list(alike)
        if walks and len(piece) == 1 and _goes_on([along_mm[index] for index in (*walks[-1][-2:], piece[0])]):
            walks[-1].append(piece[0])
        else:
            walks.append(piece)
    return walks


def _goes_on(heights_mm: Sequence[float]) -> bool:
    """Tell whether the last of two or three heights is one step further."""
    last = heights_mm[-1] - heights_mm[-2]
    step = heights_mm[1] - heights_mm[0]
    return abs(last - step) <= 2 * tolerance_mm(step) and abs(last) > tolerance_mm(step)


def _in_runs(group: Group) -> int:
    """Return how many slices lie in regular runs."""
    try:
        return sum(len(run.planes) for run in regular_runs(group.planes))
    except Skip:
        return 0


def _is_regular(planes: Sequence[Plane]) -> bool:
    steps = np.diff(np.sort(along_normal(planes, axes_of(planes[0].orientation))))
    if not len(steps):
        return True
    step = float(np.median(steps))
    return step > tolerance_mm(step) and bool((np.abs(steps - step) <= 2 * tolerance_mm(step)).all())
