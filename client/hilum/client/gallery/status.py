"""What a site sees of itself: everything that is indexed, held and prepared. Local only, so nothing is hidden."""

import re
import shutil
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hilum.client.intake.quarantine.store import Quarantine
from hilum.client.intake.reasons import Reason
from hilum.client.state.catalogue import Catalogue, Item
from hilum.client.state.index_runs import IndexRun, index_runs
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError

_PREPARED = re.compile(r"(?P<family>[a-z]+)-(?P<dims>[23])d-(?P<edge>\d+)px-")
_SHAPES_SHOWN = 5


def site_status(workspace: Workspace) -> dict[str, Any]:
    """Return the whole state of a site, as plain values.

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
    return {
        **asdict(counts),
        "families": _families(items),
        "quarantine": held,
        "index_runs": _index_runs(runs, workspace),
        "cache_bytes": _size_bytes(workspace.cache),
        "inbox": {"files": len(_sizes(workspace.inbox)), "bytes": _size_bytes(workspace.inbox)},
        "free_bytes": shutil.disk_usage(workspace.folder).free,
        "prepared": _prepared(workspace),
    }


def _families(items: list[Item]) -> dict[str, Any]:
    of_family: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        of_family[item.family].append(item)
    return {
        family: {
            "patients": len({item.patient_key for item in members}),
            "studies": len({item.study_key for item in members}),
            "kinds": dict(sorted(Counter(item.kind for item in members).items())),
            "shapes": _shapes(members),
            "other_shapes": _other_shapes(members),
            "series_of_several_volumes": _series_of_several(members),
            "spacing_mm": _spacing_ranges(members),
            **(
                {"not_in_hounsfield_units": sum(not item.has_known_units for item in members)}
                if family == "ct"
                else {}
            ),
        }
        for family, members in sorted(of_family.items())
    }


def _shapes(items: list[Item]) -> list[dict[str, Any]]:
    """Return the most frequent shapes, and how often each occurs."""
    counts = Counter(item.shape for item in items)
    frequent = sorted(counts, key=lambda shape: (-counts[shape], shape))[:_SHAPES_SHOWN]
    return [{"shape": list(shape), "items": counts[shape]} for shape in frequent]


def _other_shapes(items: list[Item]) -> int:
    """Return how many items have none of the most frequent shapes."""
    frequent = Counter(item.shape for item in items).most_common(_SHAPES_SHOWN)
    return len(items) - sum(count for _shape, count in frequent)


def _series_of_several(items: list[Item]) -> int:
    """Return how many series hold more than one volume."""
    volumes = Counter(item.series_key for item in items if item.kind == "volume")
    return sum(count > 1 for count in volumes.values())


def _spacing_ranges(items: list[Item]) -> dict[str, list[list[float]]]:
    """By kind: least and greatest spacing along each axis, of the items that have one."""
    known: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for item in items:
        if item.spacing_mm:
            known[item.kind].append(item.spacing_mm)
    return {
        kind: [[min(axis), max(axis)] for axis in zip(*spacings, strict=False)]
        for kind, spacings in sorted(known.items())
    }


def _index_runs(runs: list[IndexRun], workspace: Workspace) -> list[dict[str, Any]]:
    """Return the remembered runs, the latest first, and how each of them stands. Only the latest can still be at work."""
    return [
        {
            **asdict(run),
            "folder": run.folder or None,
            "state": _state(run, latest=run is runs[0], workspace=workspace),
        }
        for run in runs
    ]


def _state(run: IndexRun, *, latest: bool, workspace: Workspace) -> str:
    if run.seconds is not None:
        return "finished"
    return "running" if latest and workspace.is_locked() else "interrupted"


def _size_bytes(folder: Path) -> int:
    return sum(_sizes(folder))


def _sizes(folder: Path) -> list[int]:
    """Of each file below a folder, in bytes."""
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


def _prepared(workspace: Workspace) -> list[dict[str, Any]]:
    """Return what is packed for studies: family, dimensions, edge and size on disk."""
    folders = sorted(workspace.prepared.glob("*")) if workspace.prepared.exists() else []
    named = [(folder, _PREPARED.match(folder.name)) for folder in folders if folder.is_dir()]
    return [
        {
            "family": match["family"],
            "dims": int(match["dims"]),
            "image_size": int(match["edge"]),
            "bytes": _size_bytes(folder),
        }
        for folder, match in named
        if match
    ]


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return the status in words."""
    lines = [f"{status[name]:8} {name}" for name in ("files", "instances", "series", "volumes", "patients")]
    for family, facts in status["families"].items():
        kinds = ", ".join(
            f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in facts["kinds"].items()
        )
        lines.append(f"\n{family}: {kinds} of {facts['patients']} patients in {facts['studies']} studies")
        for kind, axes in facts["spacing_mm"].items():
            ranges = " x ".join(
                f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}" for low, high in axes
            )
            lines.append(f"  {kind} spacing {ranges} mm")
        lines += [
            f"  {row['items']:6} of shape {' x '.join(map(str, row['shape']))}" for row in facts["shapes"]
        ]
        if facts["other_shapes"]:
            lines.append(f"  {facts['other_shapes']:6} of other, rarer shapes")
        if facts.get("not_in_hounsfield_units"):
            lines.append(
                f"  {facts['not_in_hounsfield_units']:6} volumes are not known to be in Hounsfield units: no study takes them"
            )
        if facts["series_of_several_volumes"]:
            lines.append(
                f"  {facts['series_of_several_volumes']:6} series hold several volumes each (time points, echoes, stacks, ...)"
            )
    lines.append("")
    for reason, count in sorted(status["skipped"].items(), key=lambda one: (-one[1], one[0])):
        lines.append(f"{count:8} skipped: {Reason(reason).meaning} ({reason})")
    if status["skipped"]:
        lines.append("         which files: `hilum site skipped [REASON]`")
    lines += [
        f"{count:8} {state} in quarantine: {family}"
        for state, families in status["quarantine"].items()
        for family, count in families.items()
    ]
    lines.append(
        f"cache {status['cache_bytes'] / 1e6:.1f} MB; inbox {status['inbox']['bytes'] / 1e6:.1f} MB in "
        f"{status['inbox']['files']} files; {status['free_bytes'] / 1e9:.1f} GB of the disk are free"
    )
    lines += [
        f"prepared: {one['family']} in {one['dims']}D at {one['image_size']} px, {one['bytes'] / 1e6:.1f} MB"
        for one in status["prepared"]
    ]
    lines += [_run_words(run) for run in status["index_runs"]]
    return lines


def _run_words(run: dict[str, Any]) -> str:
    what = run["folder"] or "the inbox alone"
    if run["state"] == "finished":
        return (
            f"indexed {what}, {run['began']}, in {run['seconds']} s: {run['decoded']} files had their pixels read, "
            f"{run['removed']} were gone"
        )
    if run["state"] == "running":
        return f"an index of {what} is running since {run['began']}"
    return f"an index of {what}, begun {run['began']}, never ended; run it again, it goes on where it was"
