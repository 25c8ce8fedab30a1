"""Decoded arrays on disk: one C-order `.npy` an item, named by its content, read as a memory map."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.common.errors import DamagedError
from hilum.common.files import replacing


def content_of(array: npt.NDArray[Any]) -> str:
    """Return the SHA-256 of an array's dtype, shape and values, in hexadecimal digits."""
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{array.dtype.str}|{array.shape}|".encode())
    digest.update(array.data)
    return digest.hexdigest()


class ArrayCache:
    """The arrays of one site. Two items with the same values share one file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, array: npt.NDArray[Any]) -> str:
        """Store an array and give its content name."""
        array = np.ascontiguousarray(array)
        name = content_of(array)
        path = self._path(name)
        if not path.exists():
            with replacing(path) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        return name

    def get(self, content_sha256: str) -> npt.NDArray[Any]:
        """Return a read-only memory map of an array.

        Raises:
            DamagedError: If the file is missing or no array.
        """
        try:
            return np.load(self._path(content_sha256), mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
        except (OSError, ValueError):
            raise DamagedError(
                "a cached array is missing or damaged; remove this site's state folder and index again"
            ) from None

    def has(self, content_sha256: str) -> bool:
        """Tell whether an array is there."""
        return self._path(content_sha256).exists()

    def keep_only(self, wanted: set[str]) -> int:
        """Remove the arrays of items that are gone. Gives how many."""
        unwanted = [path for path in self.folder.glob("*/*.npy") if path.stem not in wanted]
        for path in unwanted:
            path.unlink()
        return len(unwanted)

    def _path(self, content_sha256: str) -> Path:
        return self.folder / content_sha256[:2] / f"{content_sha256}.npy"
