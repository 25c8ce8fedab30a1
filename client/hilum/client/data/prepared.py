"""Packed arrays at a study's size: what training reads.

Shapes: N items, C channels, *S space (H W, or D H W), all edges the study's store size.

Values are uint16 over [0, 1] on a scale that the modality fixes (`hilum.common.config.modalities`). Items are sorted by content, so the order is the same on
every machine. What is taken whole lies in one array, whose edge the longest edge fills, the rest zero. Volumes of which a study
takes patches or slices keep their proportions, in files of their own (`hilum.client.data.volumes`).
"""

import hashlib
import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hilum.client.data.suv import with_suv
from hilum.client.data.volume_packing import disk_needed, pack_volumes
from hilum.client.data.volumes import Volumes
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue, Item
from hilum.client.state.workspace import Workspace
from hilum.common.config.data import DataSection
from hilum.common.errors import DataError
from hilum.common.files import replacing, sync_folder
from hilum.common.preparation.fitting import fitted_channels
from hilum.common.preparation.intensity import FULL_SCALE
from hilum.common.preparation.kinds import Kind

Packed = npt.NDArray[np.uint16]
Stored = Packed | Volumes
_VERSION = 1  # raise it when the meaning of a prepared array changes


@dataclass(frozen=True)
class PreparedImages:
    """A site's images, ready to be gathered.

    Attributes:
        images: uint16 (N, C, *S), a memory map; or volumes.
        items: What each row is.
        folder: Where they lie; what is worked out from them is kept there, and goes with them.
    """

    images: Stored = field(repr=False)
    items: tuple[Item, ...] = field(repr=False)
    folder: Path = field(repr=False)


def prepare(workspace: Workspace, data: DataSection) -> PreparedImages:
    """Pack the site's images for a study; a second call with the same catalogue only opens the file.

    Raises:
        DataError: If the catalogue has no image of the study's kind, or none with SUV where it asks for it; or as `pack_volumes`.
    """
    items = items_of(workspace, data)
    if data.cut != "whole":
        volumes, of_all = pack_volumes(workspace, data, items)
        return PreparedImages(volumes, tuple(items), of_all)
    folder = workspace.prepared / _name(items, data)
    if not (folder / "images.npy").exists():
        with workspace.locked():
            _pack(ArrayCache(workspace.cache), items, data, workspace, folder.name)
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    return PreparedImages(images, tuple(items), folder)


@dataclass(frozen=True)
class Holding:
    """What a site has for a study.

    Attributes:
        images: How many.
        packed_bytes: What they take on disk when they are packed.
        lacking_bytes: What of it is still to be written.
    """

    images: int = 0
    packed_bytes: int = 0
    lacking_bytes: int = 0


def holding_of(workspace: Workspace, data: DataSection) -> Holding:
    """Return what `prepare` would pack.

    Raises:
        DataError: If the catalogue has no image of the study's kind.
    """
    items = items_of(workspace, data)
    if data.cut != "whole":
        return Holding(len(items), *disk_needed(workspace, data, items))
    packed = len(items) * data.facts.channels * math.prod(data.block_size) * np.dtype(np.uint16).itemsize
    there = (workspace.prepared / _name(items, data) / "images.npy").exists()
    return Holding(len(items), packed, 0 if there else packed)


def items_of(workspace: Workspace, data: DataSection) -> list[Item]:
    """Return the site's images for a study, in the order of their rows.

    Raises:
        DataError: If the catalogue has none of the study's kind.
    """
    if not workspace.catalogue.exists():
        raise DataError(workspace.not_indexed)
    catalogue = Catalogue(workspace.catalogue)
    try:
        volumes = data.dims == 3 or data.cut == "slices"  # noqa: PLR2004 - dimensions, not a threshold
        kinds: set[Kind] = {"volume"} if volumes else {"image", "cine"}
        items = [
            item
            for item in catalogue.items(family=data.facts.family)
            if item.kind in kinds and item.has_known_units
        ]
        if not items:
            raise DataError(_nothing_fits(catalogue, data))
        return with_suv(items) if data.in_suv else items
    finally:
        catalogue.close()


def _nothing_fits(catalogue: Catalogue, data: DataSection) -> str:
    unknown = sum(not item.has_known_units for item in catalogue.items(family=data.facts.family))
    if unknown:
        return (
            f"the site's {unknown} CT volumes are not in Hounsfield units (no rescale, or one to another quantity), and no "
            "study takes those; index CT that states slope, intercept and type"
        )
    there = sorted({(item.family, 3 if item.kind == "volume" else 2) for item in catalogue.items()})
    if not there:
        return "the site has no usable image: `hilum site status` lists why each file was set aside"
    has = ", ".join(f"{family} in {dims}D" for family, dims in there)
    slices = "slices of volumes of " if data.cut == "slices" else ""
    in_dims = "" if slices else f" in {data.dims}D"
    sliceable = data.dims == 2 and not slices and (data.facts.family, 3) in there  # noqa: PLR2004 - dimensions
    or_slices = ', or write `data.cut = "slices"`' if sliceable and data.facts.volumes else ""
    of_family = "" if data.facts.family == data.modality else f" (images of the family {data.facts.family})"
    return (
        f"the study asks for {slices}{data.modality}{of_family}{in_dims}, the site has {has}; "
        f"change `data.modality` and `data.dims` of the study to match{or_slices}"
    )


def cut(
    images: Stored,
    rows: npt.NDArray[np.int64],
    origins: npt.NDArray[np.int64] | None,
    edge: int,
    out: Packed | None = None,
) -> Packed:
    """Gather images, or a part out of each.

    Args:
        images: (N, C, *S), or volumes.
        rows: (n,).
        origins: (n, dims), where each cut begins in its array; None takes whole arrays. Of volumes, where blocks begin.
        edge: Of the cuts; volumes know the size of theirs.
        out: What they are written to, of their shape and in C order; a new array, if none.

    Returns:
        (n, C, *S), or with origins (n, C, *edge).
    """
    if isinstance(images, Volumes):
        assert origins is not None, "volumes are cut"
        return images.blocks(rows, origins, out)
    if origins is None:
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(images):
            raise IndexError(f"a row is out of bounds: there are {len(images)}")
        # `clip` writes to `out` itself, where `raise` writes to a copy first.
        return np.asarray(np.take(images, rows, axis=0, out=out, mode="clip"))
    places = [tuple(slice(begin, begin + edge) for begin in origin) for origin in origins.tolist()]
    return np.stack(
        [images[(row, slice(None), *place)] for row, place in zip(rows.tolist(), places, strict=True)],
        out=out,
    )


def cut_shape(
    images: Stored, rows: npt.NDArray[np.int64], origins: npt.NDArray[np.int64] | None, edge: int
) -> tuple[int, ...]:
    """Return the shape of what `cut` gives."""
    if isinstance(images, Volumes):
        return (len(rows), *images.block_shape)
    space = images.shape[2:] if origins is None else (edge,) * origins.shape[1]
    return (len(rows), images.shape[1], *space)


def drawn(images: Stored, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> Packed:
    """Gather images, or of each volume a block that shows something; (n, C, *S)."""
    if isinstance(images, Volumes):
        return images.blocks(rows, images.random_origins(rows, rng))
    return np.asarray(images[rows])


def _kind(data: DataSection) -> str:
    own_scale = data.window_hu is not None or data.intensity == "zscore"
    scale = f".{_digest([data.facts.values, data.facts.scale])[:8]}" if own_scale else ""
    return f"{data.modality}-{data.dims}d-{data.store_size}px{scale}"


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _name(items: list[Item], data: DataSection) -> str:
    facts = [_VERSION, [item.content_sha256 for item in items]]
    return f"{_kind(data)}-{_digest(facts)[:24]}"


def _pack(cache: ArrayCache, items: list[Item], data: DataSection, workspace: Workspace, name: str) -> None:
    """Write the packed file aside and rename it into place; that of an earlier catalogue, at the same size, goes.

    A training that still reads the earlier file keeps it until it ends, as POSIX has it.
    """
    shape = (len(items), data.facts.channels, *[data.store_size] * data.dims)
    target = workspace.prepared / name / "images.npy"
    header = {"descr": np.dtype(np.uint16).str, "fortran_order": False, "shape": shape}
    with replacing(target) as file:
        np.lib.format.write_array_header_2_0(file, header)
        for item in items:
            array = cache.get(item.content_sha256)
            fitted = fitted_channels(array, item.kind, item.spacing_mm, data)
            file.write(np.rint(fitted * FULL_SCALE).astype(np.uint16).tobytes())
    for earlier in workspace.prepared.glob(f"{_kind(data)}-*"):
        if earlier.name != name:
            shutil.rmtree(earlier)
    sync_folder(workspace.prepared)
