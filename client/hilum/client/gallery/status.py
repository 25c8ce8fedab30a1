"""What a site sees of itself: everything that is indexed, held and prepared. Local only, so nothing is hidden."""

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hilum.client.data.suv import no_suv
from hilum.client.intake.no_suv import NoSuv
from hilum.client.intake.quarantine.store import Quarantine, State
from hilum.client.state.catalogue import Catalogue, Counts, Item
from hilum.client.state.index_runs import IndexRun, index_runs
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError

_PREPARED = (
    re.compile(r"(?P<family>[a-z]+)-(?P<what>[23])d-(?P<size>\d+px)(\.[0-9a-f]+)?-[0-9a-f]+"),
    re.compile(r"(?P<family>[a-z]+)-(?P<what>patches|slices)-(?P<size>[0-9.x]+(px|mm))-[0-9a-f]+"),
)
_IN_WORDS = {
    "2": "whole images",
    "3": "whole volumes",
    "patches": "volumes for patches",
    "slices": "volumes for slices",
}
_SHAPES_SHOWN = 5


@dataclass(frozen=True)
class ShapeCount:
    """How many items have one shape."""

    shape: tuple[int, ...]
    items: int


@dataclass(frozen=True)
class FamilyStatus:
    """What is indexed of one family of images.

    Attributes:
        kinds: How many items of each kind.
        shapes: The most frequent ones.
        other_shapes: How many items have none of these.
        series_of_several_volumes: How many series hold more than one volume.
        spacing_mm: By kind: least and greatest spacing along each axis, of the items that have one.
        not_in_hounsfield_units: How many volumes of CT no study takes; None for other families.
        in_suv: How many volumes of PET have SUV; None for other families.
        no_suv: Of PET, how many volumes have none, by why.
    """

    patients: int
    studies: int
    kinds: Mapping[str, int]
    shapes: tuple[ShapeCount, ...]
    other_shapes: int
    series_of_several_volumes: int
    spacing_mm: Mapping[str, tuple[tuple[float, float], ...]]
    not_in_hounsfield_units: int | None
    in_suv: int | None
    no_suv: Mapping[NoSuv, int]


@dataclass(frozen=True)
class IndexRunStatus:
    """One index that is remembered.

    Attributes:
        folder: None where the inbox alone was looked at.
        began: UTC, ISO 8601.
        seconds: How long it took; None if it has not ended.
        decoded: How many files had their pixels read.
        removed: How many known files were gone.
    """

    folder: str | None
    began: str
    seconds: float | None
    decoded: int
    removed: int
    state: Literal["finished", "running", "interrupted"]


@dataclass(frozen=True)
class FolderSize:
    """What lies in a folder and all below it."""

    files: int
    bytes: int


@dataclass(frozen=True)
class PreparedStatus:
    """What is packed for studies of one kind.

    Attributes:
        what: What it serves.
        size: The edge of images or cubes in pixels, or the spacing of volumes in millimetres: `80px`, `1x1x1mm`.
        bytes: On disk.
    """

    family: str
    what: str
    size: str
    bytes: int


@dataclass(frozen=True)
class SiteStatus:
    """The whole state of a site.

    Attributes:
        counts: Of the catalogue.
        families: By name.
        quarantine: By state, how many images of each family.
        index_runs: The latest first.
        prepared: By name of their folder.
    """

    counts: Counts
    families: Mapping[str, FamilyStatus]
    quarantine: Mapping[State, Mapping[str, int]]
    index_runs: tuple[IndexRunStatus, ...]
    cache_bytes: int
    inbox: FolderSize
    free_bytes: int
    prepared: tuple[PreparedStatus, ...]


def site_status(workspace: Workspace) -> SiteStatus:
    """Return the whole state of a site.

    Raises:
        DataError: If nothing is indexed yet.
    """
    if not workspace.catalogue.exists():
        raise DataError(workspace.not_indexed)
    catalogue = Catalogue(workspace.catalogue)
    try:
        counts, items = catalogue.counts(), catalogue.items()
        held, runs = Quarantine(workspace, catalogue).counts(), index_runs(catalogue)
    finally:
        catalogue.close()
    return SiteStatus(
        counts=counts,
        families=_families(items),
        quarantine=held,
        index_runs=_index_runs(runs, workspace),
        cache_bytes=_size_of(workspace.cache).bytes,
        inbox=_size_of(workspace.inbox),
        free_bytes=shutil.disk_usage(workspace.folder).free,
        prepared=_prepared(workspace),
    )


def _families(items: Sequence[Item]) -> dict[str, FamilyStatus]:
    of_family: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        of_family[item.family].append(item)
    return {family: _family(family, members) for family, members in sorted(of_family.items())}


def _family(family: str, items: Sequence[Item]) -> FamilyStatus:
    shapes = Counter(item.shape for item in items)
    frequent = sorted(shapes, key=lambda shape: (-shapes[shape], shape))[:_SHAPES_SHOWN]
    volumes = Counter(item.series_key for item in items if item.kind == "volume")
    return FamilyStatus(
        patients=len({item.patient_key for item in items}),
        studies=len({item.study_key for item in items}),
        kinds=dict(sorted(Counter(item.kind for item in items).items())),
        shapes=tuple(ShapeCount(shape, shapes[shape]) for shape in frequent),
        other_shapes=len(items) - sum(shapes[shape] for shape in frequent),
        series_of_several_volumes=sum(count > 1 for count in volumes.values()),
        spacing_mm=_spacing_ranges(items),
        not_in_hounsfield_units=sum(not item.has_known_units for item in items) if family == "ct" else None,
        in_suv=sum(isinstance(item.suv, float) for item in items) if family == "pet" else None,
        no_suv=no_suv(items) if family == "pet" else {},
    )


def _spacing_ranges(items: Sequence[Item]) -> dict[str, tuple[tuple[float, float], ...]]:
    known: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for item in items:
        if item.spacing_mm:
            known[item.kind].append(item.spacing_mm)
    return {
        kind: tuple((min(axis), max(axis)) for axis in zip(*spacings, strict=False))
        for kind, spacings in sorted(known.items())
    }


def _index_runs(runs: Sequence[IndexRun], workspace: Workspace) -> tuple[IndexRunStatus, ...]:
    """Return the remembered runs, and how each of them stands. Only the latest can still be at work."""
    found = []
    for run in runs:
        state: Literal["finished", "running", "interrupted"] = "finished"
        if run.seconds is None:
            state = "running" if run is runs[0] and workspace.is_locked() else "interrupted"
        found.append(
            IndexRunStatus(run.folder or None, run.began, run.seconds, run.decoded, run.removed, state)
        )
    return tuple(found)


def _size_of(folder: Path) -> FolderSize:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return FolderSize(len(sizes), sum(sizes))


def _prepared(workspace: Workspace) -> tuple[PreparedStatus, ...]:
    folders = sorted(workspace.prepared.glob("*")) if workspace.prepared.exists() else []
    named = [
        (folder, kind.fullmatch(folder.name)) for folder in folders if folder.is_dir() for kind in _PREPARED
    ]
    return tuple(
        PreparedStatus(match["family"], _IN_WORDS[match["what"]], match["size"], _size_of(folder).bytes)
        for folder, match in named
        if match
    )
