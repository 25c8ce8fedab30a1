"""Pack a site's volumes for a study that takes patches or slices of them.

Shapes: D slices, H rows, W columns; k cells.

Each volume becomes one file, in as many threads as there are cores, and what is packed stays: a call that was killed goes on
with the volumes that are left, and an archive that grows has its new ones packed alone. All studies with the same spacing (or
size of slices) and the same scale of values share the files.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hilum.client.capacity import free_disk_bytes
from hilum.client.data.suv import factor_of
from hilum.client.data.volumes import VolumeFile, Volumes, cells_of
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Item
from hilum.client.state.workspace import Workspace
from hilum.common.config.data import DataSection
from hilum.common.config.modalities import Modality
from hilum.common.cores import usable_cores
from hilum.common.errors import DataError
from hilum.common.files import replacing
from hilum.common.preparation.intensity import shows_from, value_range
from hilum.common.preparation.packing import ShownCells, scaled_plane, target_spacing
from hilum.common.preparation.pieces import Box, Geometry
from hilum.common.preparation.resampling import Spacing, resampled, shape_after
from hilum.common.progress import progress_bar

GB = 10**9
_VERSION = 1  # raise it when the meaning of a packed volume changes
_BYTES = 2  # of a value
_CELL_BYTES = 4


@dataclass(frozen=True)
class _Planned:
    """One volume that a study takes.

    Attributes:
        shape: As it is packed.
        target_mm: The spacing that it is resampled to.
        factor: What its values are multiplied by to be on the study's scale.
    """

    item: Item = field(repr=False)
    path: Path = field(repr=False)
    shape: Box
    target_mm: Spacing
    factor: float

    @property
    def is_packed(self) -> bool:
        return cells_of(self.path).exists()

    def disk_bytes(self, cell: Box) -> int:
        """Return the most that its files take."""
        return (
            int(np.prod(self.shape)) * _BYTES + int(np.prod(np.array(self.shape) // cell + 1)) * _CELL_BYTES
        )


def pack_volumes(workspace: Workspace, data: DataSection, items: Sequence[Item]) -> tuple[Volumes, Path]:
    """Pack what is not packed yet.

    Args:
        workspace: The site's.
        data: The study's images, whose cut is patches or slices.
        items: Volumes, in the order of the rows; of a study in SUV all have one.

    Returns:
        The volumes, and a folder for what is worked out from all of them.

    Raises:
        DataError: If every volume is smaller than a patch, or they need more disk than is free.
    """
    geometry, plan = Geometry.of(data), _plan(workspace, data, items)
    if data.cut == "patches":
        _check_larger_than_a_patch(plan, data)
    lacking = _lacking(plan)
    of_all = plan[0].path.parent / "sets" / _digest([one.path.stem for one in plan])
    if lacking or not of_all.exists():
        with workspace.locked():
            _pack_all(lacking, workspace, data, geometry)
            _forget_others(plan, of_all)
    return Volumes(tuple(VolumeFile.at(one.path) for one in plan), geometry), of_all


def disk_needed(workspace: Workspace, data: DataSection, items: Sequence[Item]) -> tuple[int, int]:
    """Return how many bytes the packed volumes take, and how many of them are still to be written."""
    cell, plan = Geometry.of(data).cell, _plan(workspace, data, items)
    files = {one.path: one for one in plan}.values()
    return sum(one.disk_bytes(cell) for one in files), sum(one.disk_bytes(cell) for one in _lacking(plan))


def check_room(what: str, needed: int, workspace: Workspace, data: DataSection) -> int:
    """Return how many bytes are free on the disk of a site's state.

    Args:
        what: Is to be packed, in the plural.
        needed: The bytes that it takes.
        workspace: The site's.
        data: The study's images.

    Raises:
        DataError: If it takes more.
    """
    free = free_disk_bytes(workspace.folder)
    if needed > free:
        instead = "a larger data.spacing_mm" if data.spacing_mm else "a smaller data.image_size"
        raise DataError(
            f"{what} take {needed / GB:.3g} GB, and {free / GB:.3g} GB of the state folder's disk are free; write {instead}, or "
            "make room"
        )
    return free


def _plan(workspace: Workspace, data: DataSection, items: Sequence[Item]) -> list[_Planned]:
    folder = workspace.prepared / _kind(data)
    planned = []
    for item in items:
        target_mm = target_spacing(item.shape, item.spacing_mm, data)
        depth, height, width = shape_after(item.shape, item.spacing_mm, target_mm)
        factor = factor_of(item, data)
        own_scale = [factor] if data.in_suv else []  # the same array may have another weight and dose
        name = _digest([item.content_sha256, list(item.spacing_mm), *own_scale])
        planned.append(_Planned(item, folder / f"{name}.npy", (depth, height, width), target_mm, factor))
    return planned


def _lacking(plan: Sequence[_Planned]) -> list[_Planned]:
    """Return what is to be written; copies of one volume share a file."""
    return list({one.path: one for one in plan if not one.is_packed}.values())


def _kind(data: DataSection) -> str:
    """Name the folder of all volumes with this spacing and scale."""
    size = (
        f"{data.store_size}px"
        if data.spacing_mm is None
        else "x".join(f"{mm:g}" for mm in data.spacing_mm) + "mm"
    )
    facts = [_VERSION, data.facts.values, data.facts.scale, data.spacing_mm]
    return f"{data.modality}-{data.cut}-{size}-{_digest(facts)[:8]}"


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _check_larger_than_a_patch(plan: Sequence[_Planned], data: DataSection) -> None:
    if any(whole >= edge for one in plan for whole, edge in zip(one.shape, data.view_size, strict=True)):
        return
    largest = max((one.shape for one in plan), key=lambda shape: int(np.prod(shape)))
    raise DataError(
        f"a patch of {_times(data.view_size)} voxels at {_times(data.spacing_mm or ())} mm is larger than every volume here along "
        f"every axis; the largest has {_times(largest)}: write a smaller data.image_size, or a smaller data.spacing_mm"
    )


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _pack_all(
    lacking: Sequence[_Planned], workspace: Workspace, data: DataSection, geometry: Geometry
) -> None:
    """Write the volumes that are not there yet, after a look at the disk.

    Raises:
        DataError: If they don't fit.
    """
    if not lacking:
        return
    needed = sum(one.disk_bytes(geometry.cell) for one in lacking)
    what = (
        f"{len(lacking)} volumes at {_times(data.spacing_mm)} mm"
        if data.spacing_mm
        else f"the slices of {len(lacking)} volumes at {data.store_size} px"
    )
    free = check_room(what, needed, workspace, data)
    cache = ArrayCache(workspace.cache)
    title = f"packing {what}: {needed / GB:.3g} GB of {free / GB:.3g} GB free"
    with progress_bar(title, len(lacking)) as progress, ThreadPoolExecutor(usable_cores()) as pool:
        progress.advance(0)
        work = [pool.submit(_pack, one, cache, data.facts, geometry.cell) for one in lacking]
        try:
            for done, one in enumerate(as_completed(work), 1):
                one.result()
                progress.advance(done)
        finally:
            pool.shutdown(cancel_futures=True)


def _pack(one: _Planned, cache: ArrayCache, facts: Modality, cell: Box) -> None:
    """Write one volume, its cells last; a few slices of it are in memory, unless its scale is its own."""
    values = cache.get(one.item.content_sha256)
    shown = ShownCells(one.shape, cell, shows_from(values, facts) / one.factor)
    low, high = value_range(values, facts)
    span = low / one.factor, high / one.factor
    header = {"descr": np.dtype(np.uint16).str, "fortran_order": False, "shape": one.shape}
    with replacing(one.path) as file:
        np.lib.format.write_array_header_2_0(file, header)
        for plane in shown.watching(resampled(values, one.item.spacing_mm, one.target_mm)):
            file.write(scaled_plane(plane, span).tobytes())
    with replacing(cells_of(one.path)) as file:
        np.save(file, shown.cells(), allow_pickle=False)


def _forget_others(plan: Sequence[_Planned], of_all: Path) -> None:
    """Remove what volumes that are gone have left, and what an interrupted call has."""
    kept = {name for one in plan for name in (one.path.name, cells_of(one.path).name)}
    for path in of_all.parent.parent.glob("*"):
        if path.is_file() and path.name not in kept:
            path.unlink()
    for earlier in of_all.parent.glob("*"):
        if earlier != of_all:
            shutil.rmtree(earlier)
    of_all.mkdir(parents=True, exist_ok=True)
