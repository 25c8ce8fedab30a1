"""Which counts of patients may be shown, so that nobody can work out a small one.

A published count is rounded down to a multiple of the threshold `k`; a count below `k` is hidden, and an empty cell
looks the same as a small one. All tables of a family count the same patients, once each, so a hidden cell could still
follow from the total and the other cells. Two measures prevent it (complementary suppression; Hundepool et al.,
Statistical Disclosure Control, 2012, chapter 4): the published total stays low enough that each hidden cell may be
empty, and all tables of the family are withheld where one would narrow a hidden cell of another, or of its own. What
stays possible for a hidden cell is then always the whole range 0 to k - 1, for a reader who knows this very procedure
too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_UNBOUNDED = 2**62

Table = Mapping[str, int]
"""Patients in each cell; every patient of the family is in exactly one."""

Shown = dict[str, int | None]
"""What a table shows: a multiple of the threshold, or None where a cell is hidden."""


@dataclass(frozen=True)
class Release:
    """What may be shown of one family.

    Attributes:
        patients: At least so many; None where there are fewer than the threshold.
        tables: By name; empty where they are withheld.
    """

    patients: int | None
    tables: dict[str, Shown]


def rounded_down(count: int, threshold: int) -> int | None:
    """Return the largest multiple of the threshold that a count reaches, or None below the threshold."""
    return count // threshold * threshold or None


def banded_total(of_patient: Iterable[int], threshold: int) -> int | None:
    """Sum counts so that no patient counts for more than the `threshold`-th largest does, and round the sum down.

    Without that limit the sum could be nearly one patient's. It is the number of images that a site states, and the
    weight of its updates; with a threshold of 1 it is the exact number.

    **What one added patient shows** in two bands of one site, one before and one after. Let `k` be the threshold and
    `L` the limit, the `k`-th largest count. A patient with `c <= L` images adds `c` to the sum; one with more raises
    the limit to some `L'` and adds `L' + (k - 1)(L' - L)`. Where patients have one image each, the band moves by `k`
    once in `k` patients, and otherwise not at all. Where they have more than `k` each, say 20 under `k = 11`, every
    added patient moves it: two bands then tell that somebody came, and how many images at most to within `k`; never
    who. So a run sees one band, the first (`RunLedger.examples`), and another band costs the server another study
    under the admin's signature. What would hide it altogether is noise, and none is added yet.

    Args:
        of_patient: How many each patient has; patients without any do not count as patients.
        threshold: `k`.

    Returns:
        A multiple of the threshold, or None where fewer patients than the threshold have any.
    """
    contributing = sorted((count for count in of_patient if count), reverse=True)
    if len(contributing) < threshold:
        return None
    limit = contributing[threshold - 1]
    return rounded_down(sum(min(count, limit) for count in contributing), threshold)


def protect(
    patients: int, tables: Mapping[str, Table], threshold: int, *, at_most: int = _UNBOUNDED
) -> Release:
    """Decide what may be shown of the tables over one family's patients.

    Args:
        patients: Distinct patients of the family.
        tables: By name; the cells of each sum to `patients`. They are shown together or not at all: a single missing
            one would tell that it clashed with those that are there.
        threshold: The fewest patients a shown count may come from.
        at_most: What else is published bounds the number of patients by this.
    """
    nothing: dict[str, Shown] = {}
    if patients < threshold:
        return Release(None, nothing)
    assert all(sum(table.values()) == patients for table in tables.values())
    shown: dict[str, Shown] = {
        name: {cell: rounded_down(count, threshold) for cell, count in table.items()}
        for name, table in tables.items()
    }
    every = list(shown.values())
    if not all(map(_low, every)) or not _safe(every, patients, threshold, at_most):
        return Release(rounded_down(patients, threshold), nothing)
    return Release(_shown_total(every, patients, threshold), shown)


def _shown_total(tables: list[Shown], patients: int, threshold: int) -> int:
    """Return the patients, rounded down as far as each hidden cell may still be empty."""
    limits = [_others_high(shown, threshold) for shown in tables if _has_hidden(shown)]
    return min([patients, *limits]) // threshold * threshold


def _safe(tables: list[Shown], patients: int, threshold: int, at_most: int) -> bool:
    """Tell whether each hidden cell may be anything from 0 to threshold - 1, given all that is shown."""
    hiding = [shown for shown in tables if _has_hidden(shown)]
    total = _shown_total(tables, patients, threshold)
    lowered = any(total + threshold > _others_high(shown, threshold) for shown in hiding)
    low = max([total, *(_low(shown) for shown in tables)])
    high = min(
        at_most,
        _UNBOUNDED if lowered else total + threshold - 1,
        *(_low(shown) + len(shown) * (threshold - 1) for shown in tables),
    )
    return all(
        low <= _others_high(shown, threshold) and high - _low(shown) >= threshold - 1 for shown in hiding
    )


def _has_hidden(shown: Shown) -> bool:
    return any(count is None for count in shown.values())


def _low(shown: Shown) -> int:
    """Return the fewest patients that a table can hold."""
    return sum(count for count in shown.values() if count is not None)


def _others_high(shown: Shown, threshold: int) -> int:
    """Return the most patients that all cells but one hidden cell can hold."""
    return _low(shown) + (len(shown) - 1) * (threshold - 1)
