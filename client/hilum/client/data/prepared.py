"""Packed arrays at a study's size: what training reads.

Shapes: N items, C channels, *S space (H W, or D H W), all edges the study's store size.

Values are uint16 over [0, 1] on a scale that the modality fixes (`hilum.common.config.modalities`). Items are sorted by content, so the order is the same on
every machine. The longest edge fills the array, the rest is zero.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from hilum.client.data.picture import channels_of, content_box, still_of
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue, Item, Kind
from hilum.client.state.workspace import Workspace
from hilum.common.config.data import DataSection
from hilum.common.config.modalities import PERCENTILES, Modality
from hilum.common.errors import DataError
from hilum.common.files import replacing, sync_folder

Packed = npt.NDArray[np.uint16]
FULL_SCALE = 65_535
_VERSION = 1  # raise it when the meaning of a prepared array changes


@dataclass(frozen=True)
class PreparedImages:
    """A site's images, ready to be gathered.

    Attributes:
        images: uint16 (N, C, *S), a memory map.
        items: What each row is.
        folder: Where they lie; what is worked out from them is kept there, and goes with them.
    """

    images: Packed = field(repr=False)
    items: tuple[Item, ...] = field(repr=False)
    folder: Path = field(repr=False)


def prepare(workspace: Workspace, data: DataSection) -> PreparedImages:
    """Pack the site's images for a study; a second call with the same catalogue only opens the file.

    Raises:
        DataError: If the catalogue has no image of the study's kind.
    """
    items = _items(workspace, data)
    folder = workspace.prepared / _name(items, data)
    if not (folder / "images.npy").exists():
        with workspace.locked():
            _pack(ArrayCache(workspace.cache), items, data, workspace, folder.name)
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    return PreparedImages(images, tuple(items), folder)


def count_images(workspace: Workspace, data: DataSection) -> tuple[int, bool]:
    """Return how many images `prepare` would pack, and whether they are packed already.

    Raises:
        DataError: If the catalogue has no image of the study's kind.
    """
    items = _items(workspace, data)
    return len(items), (workspace.prepared / _name(items, data) / "images.npy").exists()


def _items(workspace: Workspace, data: DataSection) -> list[Item]:
    if not workspace.catalogue.exists():
        raise DataError(workspace.not_indexed)
    catalogue = Catalogue(workspace.catalogue)
    try:
        kinds: set[Kind] = {"image", "cine"} if data.dims == 2 else {"volume"}  # noqa: PLR2004 - dimensions, not a threshold
        items = [
            item
            for item in catalogue.items(family=data.facts.family)
            if item.kind in kinds and item.has_known_units
        ]
        if not items:
            raise DataError(_nothing_fits(catalogue, data))
        return items
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
    of_family = "" if data.facts.family == data.modality else f" (images of the family {data.facts.family})"
    return (
        f"the study asks for {data.modality}{of_family} in {data.dims}D, the site has {has}; "
        "change `data.modality` and `data.dims` of the study to match"
    )


def cut(
    images: Packed, rows: npt.NDArray[np.int64], origins: npt.NDArray[np.int64] | None, edge: int
) -> Packed:
    """Gather images, or a square or cube out of each.

    Args:
        images: (N, C, *S).
        rows: (n,).
        origins: (n, dims), where each cut begins in its array; None takes whole arrays.
        edge: Of the cuts.

    Returns:
        (n, C, *S), or with origins (n, C, *edge).
    """
    if origins is None:
        return np.asarray(images[rows])
    places = [tuple(slice(begin, begin + edge) for begin in origin) for origin in origins.tolist()]
    return np.stack(
        [images[(row, slice(None), *place)] for row, place in zip(rows.tolist(), places, strict=True)]
    )


def _kind(data: DataSection) -> str:
    return f"{data.modality}-{data.dims}d-{data.store_size}px"


def _name(items: list[Item], data: DataSection) -> str:
    facts = [_VERSION, [item.content_sha256 for item in items]]
    return f"{_kind(data)}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}"


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


def fitted_channels(
    array: npt.NDArray[np.generic], kind: Kind, spacing_mm: tuple[float, ...], data: DataSection
) -> npt.NDArray[np.float32]:
    """Bring a cached array to the study's channels, range and size.

    Args:
        array: (H, W), (H, W, 3), (T, H, W), (T, H, W, 3) or (D, H, W).
        kind: Which of these it is.
        spacing_mm: One distance an axis of space; empty means square pixels.
        data: The study's.

    Returns:
        (C, *S) in [0, 1].
    """
    facts = data.facts
    values = unit_range(channels_of(still_of(array, kind), kind, facts), facts)
    if facts.dark_border:
        values = values[content_box(values)]
    return np.stack([fit(channel, spacing_mm, data.store_size) for channel in values])


def unit_range(values: npt.NDArray[np.generic], modality: Modality) -> npt.NDArray[np.float32]:
    """Bring an array with known units to [0, 1]."""
    wide = np.asarray(values, np.float32)
    low, high = modality.values or np.percentile(wide, PERCENTILES)
    if low == high:
        low, high = float(wide.min()), float(wide.max())
    scaled: npt.NDArray[np.float32] = ((wide - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    return scaled


def fit(values: npt.NDArray[np.float32], spacing_mm: tuple[float, ...], edge: int) -> npt.NDArray[np.float32]:
    """Scale an image or volume, true to its physical proportions, to fill an edge; pad the rest with zero.

    Args:
        values: (*S).
        spacing_mm: One distance an axis; empty means square pixels.
        edge: Of the result.

    Returns:
        (edge, edge) or (edge, edge, edge).
    """
    extent = np.array(values.shape, float) * (np.array(spacing_mm) if spacing_mm else 1.0)
    inner = [max(1, round(edge * part / extent.max())) for part in extent]
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    if tensor.ndim == 4:  # noqa: PLR2004 - B C H W
        scaled = F.interpolate(tensor, inner, mode="bilinear", antialias=True)
    else:
        # Average first where an axis shrinks: trilinear sampling alone would skip voxels.
        smaller = [min(part, size) for part, size in zip(inner, values.shape, strict=True)]
        scaled = F.interpolate(F.interpolate(tensor, smaller, mode="area"), inner, mode="trilinear")
    fitted = np.zeros((edge,) * values.ndim, np.float32)
    place = tuple(slice((edge - part) // 2, (edge - part) // 2 + part) for part in inner)
    fitted[place] = scaled[0, 0].clamp(0, 1).numpy()
    return fitted
