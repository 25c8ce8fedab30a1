"""A site's volumes, each in a file of its own, and pieces cut out of them: patches, or slices as images.

Shapes: N volumes, n draws, D slices, H rows, W columns; *S is D H W of patches and H W of slices.

<state>/prepared/<kind>/
    <name>.npy          (D, H, W) uint16 over [0, 1], as `hilum.client.data.volume_packing` writes it
    <name>.cells.npy    (k,) int32, which of its cells show something; written last, so that what has it is whole
    sets/<digest>/      what is worked out from all of a site's volumes, such as who is whose twin

A file is mapped while something is cut out of it and no longer, so that what lies in memory grows with the pieces alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hilum.common.errors import DamagedError
from hilum.common.preparation.pieces import (
    Box,
    Cells,
    Geometry,
    Origins,
    box_of,
    covering_origins,
    cut_into,
    random_origins,
)

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class VolumeFile:
    """One packed volume.

    Attributes:
        path: Of its values; its cells lie beside it.
        shape: D H W.
        begins: Byte of the first value.
    """

    path: Path = field(repr=False)
    shape: Box
    begins: int

    @classmethod
    def at(cls, path: Path) -> "VolumeFile":
        """Read a file's header.

        Raises:
            DamagedError: If it is missing or no such file.
        """
        try:
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                shape, in_columns, dtype = np.lib.format.read_array_header_2_0(file)
                begins = file.tell()
            whole = begins + int(np.prod(shape)) * dtype.itemsize == path.stat().st_size
        except (OSError, ValueError):
            whole = False
        if not whole or in_columns or dtype != np.uint16:
            raise DamagedError(_gone(path))
        return cls(path, box_of(shape), begins)

    def values(self) -> npt.NDArray[np.uint16]:
        """Map the volume, (D, H, W)."""
        try:
            return np.memmap(self.path, np.uint16, "r", self.begins, self.shape)
        except (OSError, ValueError):
            raise DamagedError(_gone(self.path)) from None

    def cells(self) -> Cells:
        """Read the indices of the cells that show something, (k,)."""
        try:
            found: Cells = np.load(cells_of(self.path), allow_pickle=False)
        except (OSError, ValueError):
            raise DamagedError(_gone(self.path)) from None
        return found


def _gone(path: Path) -> str:
    return f"a packed volume is missing or damaged: remove {path} and {cells_of(path).name} beside it, and ask again; it is packed again"


def cells_of(path: Path) -> Path:
    """Return where the cells of a packed volume lie."""
    return path.with_suffix(".cells.npy")


@dataclass(frozen=True)
class Volumes:
    """Rows that are volumes.

    Attributes:
        files: (N,).
        geometry: What is cut out of them.
    """

    files: tuple[VolumeFile, ...] = field(repr=False)
    geometry: Geometry

    def __len__(self) -> int:
        """Return N."""
        return len(self.files)

    @property
    def block_shape(self) -> tuple[int, ...]:
        """The shape of a block, (1, *S)."""
        return (1, *(self.geometry.block[1:] if self.geometry.flat else self.geometry.block))

    def of_rows(self, rows: Rows) -> "Volumes":
        """Return some of them."""
        return replace(self, files=tuple(self.files[row] for row in rows.tolist()))

    def random_origins(self, rows: Rows, rng: np.random.Generator) -> Origins:
        """Draw a piece of each row that shows something; a row may be asked for several times.

        Args:
            rows: (n,).
            rng: Gives the same numbers whatever the volumes hold.

        Returns:
            (n, 3), where blocks begin.
        """
        drawn = rng.random((len(rows), 7))
        found = np.zeros((len(rows), 3), np.int64)
        for row in np.unique(rows).tolist():
            here, one = rows == row, self.files[row]
            found[here] = random_origins(
                one.shape, one.cells(), self.geometry.cell, self.geometry.block, drawn[here]
            )
        return found

    def covering_origins(self, row: int) -> Origins:
        """Return where pieces begin that together show a volume, (k, 3)."""
        one = self.files[row]
        return covering_origins(one.shape, one.cells(), self.geometry.cell, self.geometry.seen)

    def blocks(
        self, rows: Rows, origins: Origins, out: npt.NDArray[np.uint16] | None = None
    ) -> npt.NDArray[np.uint16]:
        """Return (n, 1, *S), what views are made of; in `out`, if it is given."""
        return self._cut(rows, origins, self.geometry.block, out)

    def seen(self, rows: Rows, origins: Origins) -> npt.NDArray[np.uint16]:
        """Return (n, 1, *S), what the encoder sees of a volume that it is to see all of."""
        return self._cut(rows, origins, self.geometry.seen)

    def _cut(
        self, rows: Rows, origins: Origins, size: Box, out: npt.NDArray[np.uint16] | None = None
    ) -> npt.NDArray[np.uint16]:
        shape = (len(rows), 1, *size)
        cut = np.empty(shape, np.uint16) if out is None else out.reshape(shape)
        for row in np.unique(rows).tolist():
            values = self.files[row].values()
            for place in np.flatnonzero(rows == row).tolist():
                cut_into(cut[place, 0], values, origins[place].tolist())
        return cut[:, :, 0] if self.geometry.flat else cut


def joined(several: Iterable[Volumes]) -> Volumes:
    """Put the volumes of several sites after one another."""
    all_of_them = list(several)
    return replace(all_of_them[0], files=tuple(one for volumes in all_of_them for one in volumes.files))
