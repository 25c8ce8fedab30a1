"""What a site may tell of its images to others: counts and fixed-edge histograms, each over enough patients.

Everything is counted in patients, each once in every table, in the cell where most of the patient's items lie. No
minimum, maximum or mean is given: each would be one patient's. `disclosure/counts.py` decides which counts may be shown,
`answers.py` that two answers can't be played against each other.
"""

import hashlib
import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from hilum.client.disclosure.answers import DEFAULT_BUDGET, Answer, AnswerLedger, Facts
from hilum.client.disclosure.counts import Shown, banded_total, protect
from hilum.client.intake.instance import STACKED_FAMILIES, Family
from hilum.client.state.catalogue import Catalogue, Item
from hilum.client.state.labels import Labels
from hilum.client.state.workspace import Workspace
from hilum.common.config.study import MIN_PATIENTS
from hilum.common.errors import ConfigError, DataError

FAMILIES: tuple[str, ...] = get_args(Family)

EDGES: dict[str, tuple[float, ...]] = {
    "in_plane_spacing_mm": (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 4.0),
    "matrix_px": (64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096),
    "slice_spacing_mm": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0),
    "slices_per_volume": (16, 32, 64, 128, 256, 512),
}
"""Inner edges of the histograms, a value on an edge belonging above it. They never depend on the data."""

_OF_VOLUMES = ("slice_spacing_mm", "slices_per_volume")
_UNKNOWN = "unknown"
_SEVERAL, _UNLABELLED, _OTHER = "several labels", "no label", "labels of few patients"
_PLANE, _PLANES = 2, 3  # axes of an image and of a volume
_TOLERANCE_MM = 1e-6  # a spacing that was rounded in a file still falls where it belongs


@dataclass(frozen=True)
class _Patient:
    """One patient's items of one family, and label cells by column."""

    items: list[Item] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


def describe_site(
    workspace: Workspace,
    *,
    labels: Mapping[str, Labels] | None = None,
    threshold: int = MIN_PATIENTS,
    budget: int = DEFAULT_BUDGET,
    agree: Callable[[int], None] = lambda _left: None,
) -> Answer:
    """Describe a site so that the description may leave it.

    Args:
        workspace: An indexed site's.
        labels: Label columns by name, to be counted too.
        threshold: Patients that each number comes from at least.
        budget: How many different answers the site gives.
        agree: Asked before one of them is spent, with how many are left; see `AnswerLedger.ask`.

    Returns:
        `{"threshold", "families": {family: {"patients", "studies", "images", "volumes", "tables"}}}`; a count is a
        multiple of the threshold that is reached, or None where it is hidden.

    Raises:
        ConfigError: If the threshold is below `MIN_PATIENTS`.
        DataError: If nothing is indexed.
        PolicyRefused: If the answers given so far forbid a new one.
    """
    if threshold < MIN_PATIENTS:
        raise ConfigError(
            "describe", [f"the threshold is {threshold}; it can be raised, not lowered below {MIN_PATIENTS}"]
        )
    if not workspace.catalogue.exists():
        raise DataError(workspace.not_indexed)
    catalogue = Catalogue(workspace.catalogue)
    try:
        items = catalogue.items()
    finally:
        catalogue.close()
    asked = dict(sorted((labels or {}).items()))
    patients = _by_patient(items, asked)
    ledger = AnswerLedger(workspace.answers)
    try:
        with workspace.locked():
            return ledger.ask(
                {"threshold": threshold, "labels": list(asked), "edges": EDGES},
                {key: _facts(families) for key, families in patients.items()},
                lambda: description(items, asked, threshold),
                threshold=threshold,
                budget=budget,
                agree=agree,
            )
    finally:
        ledger.close()


def description(items: Iterable[Item], labels: Mapping[str, Labels], threshold: int) -> dict[str, Any]:
    """Return the description itself; the same items always give the same."""
    of_family: dict[str, list[_Patient]] = defaultdict(list)
    for families in _by_patient(items, labels).values():
        for family, patient in families.items():
            of_family[family].append(patient)
    return {
        "threshold": threshold,
        "families": {
            family: _family(family, of_family[family], list(labels), threshold) for family in FAMILIES
        },
    }


def _by_patient(items: Iterable[Item], labels: Mapping[str, Labels]) -> dict[str, dict[str, _Patient]]:
    """Patient to family to items. Two pseudonyms that a label table calls one patient are one patient."""
    items = list(items)
    same = _Groups({item.patient_key for item in items})
    for item in items:
        for table in labels.values():
            if item.item_key in table.patient_of:
                same.join(item.patient_key, table.patient_of[item.item_key])
    patients: dict[str, dict[str, _Patient]] = defaultdict(lambda: defaultdict(_Patient))
    for item in items:
        patients[same.of(item.patient_key)][item.family].items.append(item)
    for families in patients.values():
        for patient in families.values():
            for column, table in labels.items():
                patient.labels[column] = _label_cell(patient.items, table)
    return patients


class _Groups:
    """Which keys mean one thing (union-find).

    A group is named by its smallest key, and by a site's own pseudonym where it has one: named by a label table's words,
    patients would look like others to the ledger of answers as soon as a table is given.
    """

    def __init__(self, own: set[str]) -> None:
        self._own = own
        self._up: dict[str, str] = {}

    def of(self, key: str) -> str:
        while self._up.get(key, key) != key:
            key = self._up[key]
        return key

    def join(self, one: str, other: str) -> None:
        first, second = sorted((self.of(one), self.of(other)), key=lambda key: (key not in self._own, key))
        self._up[second] = first


def _label_cell(items: list[Item], table: Labels) -> str:
    found = {table.label_of[item.item_key] for item in items if item.item_key in table.label_of}
    if len(found) > 1:
        return _SEVERAL
    return f"={found.pop()}" if found else _UNLABELLED


def _facts(families: Mapping[str, _Patient]) -> Facts:
    images = sorted(
        [
            *(item.family, item.kind, item.study_key, item.content_sha256, *map(str, item.spacing_mm)),
            *(["suv"] if _has_suv(item) else []),
        ]
        for patient in families.values()
        for item in patient.items
    )
    labels = sorted([family, *sorted(patient.labels.items())] for family, patient in families.items())
    return Facts(_digest(images), _digest(labels))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def _family(family: str, patients: list[_Patient], columns: list[str], threshold: int) -> dict[str, Any]:
    names = [name for name in EDGES if family in STACKED_FAMILIES or name not in _OF_VOLUMES]
    tables = {name: _histogram(name, patients) for name in names}
    if family == "pet":
        tables["suv"] = _suv_table(patients)
    tables |= {f"label: {column}": _label_table(column, patients, threshold) for column in columns}
    counts = {
        "studies": banded_total([len({item.study_key for item in one.items}) for one in patients], threshold),
        "images": banded_total([_items_of(one, "image") for one in patients], threshold),
        "volumes": banded_total([_items_of(one, "volume") for one in patients], threshold),
    }
    release = protect(len(patients), tables, threshold, at_most=_at_most(counts, threshold))
    return {"patients": release.patients, **counts, "tables": _as_json(release.tables)}


def _items_of(patient: _Patient, kind: str) -> int:
    return sum((item.kind == "volume") == (kind == "volume") for item in patient.items)


def _at_most(counts: Mapping[str, int | None], threshold: int) -> int:
    """Return the most patients that the published counts allow: each has a study, and an image or a volume."""
    limits = [2**62]
    if counts["studies"] is not None:
        limits.append(counts["studies"] + threshold - 1)
    if counts["images"] is not None and counts["volumes"] is not None:
        limits.append(counts["images"] + counts["volumes"] + 2 * (threshold - 1))
    return min(limits)


def _histogram(name: str, patients: Iterable[_Patient]) -> dict[str, int]:
    edges = EDGES[name]
    cells = Counter(_usual_cell(name, edges, patient.items) for patient in patients)
    names = [*(_range_words(edges, index) for index in range(len(edges) + 1)), _UNKNOWN]
    return {words: cells[index] for index, words in enumerate(names)}


def _suv_table(patients: Iterable[_Patient]) -> dict[str, int]:
    """Return how many patients have SUV in most of their volumes: that it is known, never what it rests on."""
    cells = Counter(
        2 * sum(map(_has_suv, one.items)) > sum(item.kind == "volume" for item in one.items)
        for one in patients
    )
    return {"known": cells[True], _UNKNOWN: cells[False]}


def _has_suv(item: Item) -> bool:
    return item.kind == "volume" and isinstance(item.suv, float)


def _usual_cell(name: str, edges: tuple[float, ...], items: Iterable[Item]) -> int:
    """Return the cell of most items, the lowest of several; what is unknown stands behind the last cell."""
    values = [_value(name, item) for item in items]
    cells = Counter(bisect_right(edges, value + _TOLERANCE_MM) for value in values if value is not None)
    return min(cells, key=lambda cell: (-cells[cell], cell), default=len(edges) + 1)


def _value(name: str, item: Item) -> float | None:
    match name:
        case "in_plane_spacing_mm":
            return item.spacing_mm[-1] if len(item.spacing_mm) >= _PLANE else None
        case "matrix_px":
            first = 0 if item.kind == "image" else 1  # an image may have a last axis of colours
            return float(max(item.shape[first : first + 2]))
        case "slice_spacing_mm":
            stacked = item.kind == "volume" and len(item.spacing_mm) == _PLANES
            return item.spacing_mm[0] if stacked else None
        case _:
            return float(item.shape[0]) if item.kind == "volume" else None


def _range_words(edges: tuple[float, ...], index: int) -> str:
    if index == 0:
        return f"below {edges[0]:g}"
    if index == len(edges):
        return f"{edges[-1]:g} and above"
    return f"{edges[index - 1]:g} to {edges[index]:g}"


def _label_table(column: str, patients: Iterable[_Patient], threshold: int) -> dict[str, int]:
    """Labels that enough patients share, by name; the name of a rarer one could itself tell who it is."""
    cells = Counter(patient.labels[column] for patient in patients)
    table = {_SEVERAL: cells.pop(_SEVERAL, 0), _UNLABELLED: cells.pop(_UNLABELLED, 0), _OTHER: 0}
    for cell, count in sorted(cells.items()):
        if count < threshold:
            table[_OTHER] += count
        else:
            table[cell] = count
    return table


def _as_json(tables: Mapping[str, Shown]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [{"cell": cell.removeprefix("="), "patients": count} for cell, count in shown.items()]
        for name, shown in tables.items()
    }
