"""The masks of a site as class numbers, in the geometry of the prepared images.

Shapes: N prepared images, n draws, K classes, *S the prepared space, *O an image's own space.

A mask goes the way of its image: cut to what is not black, scaled, moved to the middle, resampled. Each class is resampled as
an image of 0 and 1 by the image's own weights, and a voxel belongs to the class of the largest share (area vote): a mask that
is a threshold of its image stays one.

<prepared folder>/masks-<classes>-<annotations>/<row>.npy     (*S) uint8, 0 for the background, then the classes in order
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.client.data.own_grid import ClassNumbers, OwnGrid
from hilum.client.data.prepared import PreparedImages
from hilum.client.data.volumes import Volumes
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Annotation, Catalogue, Item
from hilum.client.state.labels import Labels
from hilum.client.state.workspace import Workspace
from hilum.common.config.data import DataSection
from hilum.common.errors import DamagedError, DataError
from hilum.common.preparation.fitting import fit
from hilum.common.preparation.packing import target_spacing
from hilum.common.preparation.pieces import Box, Geometry, Origins, grid_shape, random_origins
from hilum.common.preparation.resampling import resampled
from hilum.common.progress import progress_bar

Rows = npt.NDArray[np.int64]
MAX_CLASSES = 64
_VERSION = 1  # raise it when the meaning of a packed mask changes
_ON_CLASSES = 3
"""One draw of a volume in so many is placed on a class: small structures are seen too (nnU-Net, arXiv 1809.10486)."""


def annotated(workspace: Workspace) -> dict[str, list[Annotation]]:
    """Return the masks of the site's catalogue by the key of their item, in a stable order."""
    catalogue = Catalogue(workspace.catalogue)
    try:
        found: dict[str, list[Annotation]] = {}
        for one in catalogue.annotations(kind="mask"):
            found.setdefault(one.item_key, []).append(one)
        return found
    finally:
        catalogue.close()


def chosen_classes(
    asked: Sequence[str], items: Sequence[Item], masks: Mapping[str, Sequence[Annotation]]
) -> tuple[str, ...]:
    """Return the classes of a study: those that it names, or all that the masks of some items are of, in natural order.

    Raises:
        DataError: If no item has a mask, a named class has none, or there are too many.
    """
    found = {one.label for item in items for one in masks.get(item.item_key, ())}
    if not found:
        raise DataError(
            "no image of the study has a mask; `hilum site annotate FOLDER` ties masks to images, and lists under `skipped` "
            "which it did not take"
        )
    known = sorted(found, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    if unknown := [name for name in asked if name not in found]:
        raise DataError(
            f"tasks.segmentation.classes names {_list(unknown)}, and the masks here are of {_list(known)}; name some of these, "
            "or rename them by `hilum site annotate --labels`"
        )
    if not asked and len(known) > MAX_CLASSES:
        raise DataError(
            f"the masks here are of {len(known)} classes, and {MAX_CLASSES} at most are segmented; name those that you want in "
            "tasks.segmentation.classes"
        )
    return tuple(asked) or tuple(known)


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"  # noqa: PLR2004 - a line's worth


def class_numbers(
    shape: tuple[int, ...], masks: Sequence[Annotation], stored: ArrayCache, classes: Sequence[str]
) -> ClassNumbers:
    """Return the class of each voxel of an item's own grid, (*O); where masks overlap, the later class of the list wins.

    Args:
        shape: Of the item, without its colour axis.
        masks: Of the item; several of one class are put together.
        stored: The site's masks.
        classes: The names that count from 1.
    """
    numbers = np.zeros(shape, np.uint8)
    for number, name in enumerate(classes, 1):
        for one in masks:
            if one.label == name:
                voxels = stored.get(one.content_sha256)
                begins = (int(start) for start in one.place)
                place = tuple(slice(at, at + size) for at, size in zip(begins, voxels.shape, strict=True))
                numbers[place][voxels] = number
    return numbers


def prepared_numbers(numbers: ClassNumbers, grid: OwnGrid, data: DataSection, count: int) -> ClassNumbers:
    """Bring class numbers (*O) to the prepared grid (*S), by area vote.

    Args:
        numbers: On the image's own grid.
        grid: That grid beside the prepared one.
        data: The study's.
        count: K.
    """
    kept = numbers[grid.kept]
    if data.cut == "whole":
        shares = [
            fit((kept == number).astype(np.float32), grid.spacing_mm, data.store_size)
            for number in range(1, count + 1)
        ]
        return _elected(shares)
    target_mm = target_spacing(grid.shape, grid.spacing_mm, data)
    by_class = [resampled(kept == number, grid.spacing_mm, target_mm) for number in range(1, count + 1)]
    return np.stack([_elected(planes) for planes in zip(*by_class, strict=True)])


def _elected(shares: Sequence[npt.NDArray[np.float32]]) -> ClassNumbers:
    """Return the number of the largest share in each place: 0, for what is left over, or from 1 on."""
    rest = 1 - np.sum(shares, axis=0, dtype=np.float32)
    elected: ClassNumbers = np.argmax([rest, *shares], axis=0).astype(np.uint8)
    return elected


@dataclass(frozen=True)
class Masks:
    """Class numbers beside prepared images.

    Attributes:
        classes: K names; the class of number k is the (k-1)-th.
        of_rows: The annotations of each row, of these classes.
        stored: The site's masks as they were drawn.
        paths: Of each row's class numbers; None where a row has no mask.
        geometry: What is cut out of volumes; None where images are taken whole.
    """

    classes: tuple[str, ...]
    of_rows: tuple[tuple[Annotation, ...], ...] = field(repr=False)
    stored: ArrayCache = field(repr=False)
    paths: tuple[Path | None, ...] = field(repr=False)
    geometry: Geometry | None = None

    def drawn(self, row: int, shape: tuple[int, ...]) -> ClassNumbers:
        """Return the class numbers of a row on its image's own grid of this shape, as they were drawn."""
        return class_numbers(shape, self.of_rows[row], self.stored, self.classes)

    def of_row(self, row: int) -> ClassNumbers:
        """Map the class numbers of a row, (*S).

        Raises:
            DamagedError: If the file is missing or no array.
        """
        path = self.paths[row]
        assert path is not None, "the row has a mask"
        return _mapped(path)

    def origins(self, rows: Rows, images: Volumes, rng: np.random.Generator) -> Origins:
        """Draw a piece of each row, as `Volumes.random_origins`; one in three where there is a class, if there is one.

        Returns:
            (n, 3), where blocks begin.
        """
        origins = images.random_origins(rows, rng)
        drawn = rng.random((len(rows), 8))
        for place in np.flatnonzero(drawn[:, 7] * _ON_CLASSES < 1).tolist():
            one = images.files[rows[place]]
            cells = _mapped(_cells_of(self.paths[rows[place]]))
            if len(cells):
                cell, block = images.geometry.cell, images.geometry.block
                origins[place] = random_origins(one.shape, cells, cell, block, drawn[place : place + 1, :7])[
                    0
                ]
        return origins

    def blocks(self, rows: Rows, origins: Origins | None) -> ClassNumbers:
        """Return (n, *S), or of volumes the blocks (n, *block) that begin at the origins; outside of a volume is background."""
        if self.geometry is None or origins is None:
            return np.stack([self.of_row(row) for row in rows.tolist()])
        cut = np.zeros((len(rows), *self.geometry.block), np.uint8)
        for piece, row, origin in zip(cut, rows.tolist(), origins.tolist(), strict=True):
            _cut_into(piece, self.of_row(row), origin)
        return cut[:, 0] if self.geometry.flat else cut


def _cut_into(piece: ClassNumbers, volume: ClassNumbers, origin: Sequence[int]) -> None:
    inside = tuple(
        slice(max(begin, 0), min(begin + edge, whole))
        for begin, edge, whole in zip(origin, piece.shape, volume.shape, strict=True)
    )
    piece[tuple(slice(part.start - at, part.stop - at) for part, at in zip(inside, origin, strict=True))] = (
        volume[inside]
    )


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError):
        raise DamagedError(
            "a prepared mask is missing or damaged: remove `prepared` in the site's state folder, and ask again; it is "
            "prepared again"
        ) from None


def _cells_of(path: Path | None) -> Path:
    assert path is not None, "the row has a mask"
    return path.with_suffix(".cells.npy")


def prepare_masks(
    workspace: Workspace, prepared: PreparedImages, data: DataSection, asked: Sequence[str]
) -> Masks:
    """Prepare the masks of a site's prepared images; a second call with the same masks only finds the files.

    Args:
        workspace: The site's.
        prepared: Its images.
        data: The study's.
        asked: The classes that the study names; all that are found, if none.

    Raises:
        DataError: As `chosen_classes`.
    """
    masks = annotated(workspace)
    classes = chosen_classes(asked, prepared.items, masks)
    of_rows = tuple(
        tuple(one for one in masks.get(item.item_key, ()) if one.label in classes) for item in prepared.items
    )
    kind = f"masks-{_digest([_VERSION, classes])}"
    facts = [[one.label, one.content_sha256, one.place] for some in of_rows for one in some]
    folder = prepared.folder / f"{kind}-{_digest([facts, [len(some) for some in of_rows]])}"
    geometry = Geometry.of(data) if isinstance(prepared.images, Volumes) else None
    if not folder.exists():
        with workspace.locked():
            for earlier in prepared.folder.glob(f"{kind}-*"):
                shutil.rmtree(earlier)
            _write(folder, workspace, prepared, of_rows, data, classes)
    paths = (folder / f"{row}.npy" if some else None for row, some in enumerate(of_rows))
    return Masks(classes, of_rows, ArrayCache(workspace.masks), tuple(paths), geometry)


def _write(
    folder: Path,
    workspace: Workspace,
    prepared: PreparedImages,
    of_rows: Sequence[Sequence[Annotation]],
    data: DataSection,
    classes: Sequence[str],
) -> None:
    """Write the class numbers of all rows aside, and rename the folder once it is whole."""
    images, stored = ArrayCache(workspace.cache), ArrayCache(workspace.masks)
    aside = folder.with_name(f"part-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    marked = [row for row, some in enumerate(of_rows) if some]
    with progress_bar("preparing masks", len(marked)) as progress:
        for done, row in enumerate(marked, 1):
            item = prepared.items[row]
            grid = OwnGrid.of(images.get(item.content_sha256), item.kind, item.spacing_mm, data)
            own = class_numbers(grid.shape, of_rows[row], stored, classes)
            numbers = prepared_numbers(own, grid, data, len(classes))
            np.save(aside / f"{row}.npy", numbers, allow_pickle=False)
            if isinstance(prepared.images, Volumes):
                np.save(aside / f"{row}.cells.npy", _cells(numbers, prepared.images.geometry.cell))
            progress.advance(done)
    aside.rename(folder)


def _cells(numbers: ClassNumbers, cell: Box) -> npt.NDArray[np.int32]:
    """Return the cells of a volume that hold a class, (k,), in C order."""
    shape = numbers.shape
    grid = grid_shape((shape[0], shape[1], shape[2]), cell)
    place = tuple(axis // edge for axis, edge in zip(np.nonzero(numbers), cell, strict=True))
    return np.unique(np.ravel_multi_index(place, grid)).astype(np.int32)


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def mask_labels(
    workspace: Workspace, items: Sequence[Item], asked: Sequence[str], patient_of: dict[str, str]
) -> Labels:
    """Return what stands for a label of each item that has a mask of the study's classes: a digest of its masks.

    Args:
        workspace: The site's.
        items: Of the study.
        asked: The classes that the study names.
        patient_of: Whose image each is, as the site's label table has it.

    Raises:
        DataError: As `chosen_classes`.
    """
    masks = annotated(workspace)
    classes = chosen_classes(asked, items, masks)
    facts = {
        item.item_key: [
            [one.label, one.content_sha256, one.place]
            for one in masks.get(item.item_key, ())
            if one.label in classes
        ]
        for item in items
    }
    return Labels({key: _digest(some) for key, some in facts.items() if some}, patient_of, 0)
