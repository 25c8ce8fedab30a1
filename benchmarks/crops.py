"""Random 96^3 patches of packed volumes, beside MONAI's CacheDataset and PersistentDataset with RandSpatialCrop.

    python benchmarks/crops.py

The volumes have 16 bits and lie in the page cache. Ours draws places that show something, maps each volume once a batch and
copies the patches out of it, as training does. MONAI's CacheDataset keeps whole volumes in memory and copies one before each random
transform, unless told not to; its PersistentDataset loads a file of each first: one crop a load, and four a load. All cut where
they should, checked first. The limit is a copy of as many bytes in memory.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.transforms import RandSpatialCrop, RandSpatialCropSamples, SpatialCrop, Transform
from timing import compare, median_s

from hilum.client.data.volumes import VolumeFile, Volumes, cells_of
from hilum.common.config.data import DataSection
from hilum.common.preparation.pieces import Geometry

SHAPE, CROP, VOLUMES = (120, 512, 512), 96, 3
BATCH, BATCHES = 24, 10
CROPS, PEER_CROPS = BATCH * BATCHES, 12
Volume = npt.NDArray[np.int16]


def packed(volumes: list[Volume], folder: Path) -> Volumes:
    """Write the volumes as `hilum.client.data.volume_packing` does; every cell shows something."""
    files = []
    for number, volume in enumerate(volumes):
        path = folder / f"packed-{number}.npy"
        with path.open("wb") as file:
            np.lib.format.write_array(file, volume.view(np.uint16), version=(2, 0))
        cells = np.prod([-(-edge // 8) for edge in SHAPE])
        np.save(cells_of(path), np.arange(cells, dtype=np.int32))
        files.append(VolumeFile.at(path))
    # Training cuts blocks of a quarter more; here both cut what the encoder sees.
    seen = Geometry.of(DataSection(modality="ct", dims=3, image_size=CROP))
    return Volumes(tuple(files), Geometry(seen.seen, seen.seen, seen.cell, flat=False))


class Ours:
    """Batches of patches, as training takes them."""

    def __init__(self, volumes: Volumes) -> None:
        self.volumes, self.rng = volumes, np.random.default_rng(0)

    def take(self) -> None:
        """Random patches of random volumes."""
        for _ in range(BATCHES):
            rows = self.rng.integers(0, VOLUMES, BATCH)
            torch.from_numpy(
                self.volumes.blocks(rows, self.volumes.random_origins(rows, self.rng)).view(np.int16)
            )


class _Load(Transform):
    """Loads one volume with its channel, as a deterministic transform that is cached."""

    def __call__(self, path: str) -> torch.Tensor:
        return torch.from_numpy(np.load(path))[None]


def crops_of(dataset: Dataset, count: int) -> Callable[[], object]:
    """Take so many items in turn, stacked as a loader stacks them."""
    return lambda: torch.stack([_one(dataset[number % VOLUMES]) for number in range(count)])


def _one(item: object) -> torch.Tensor:
    """Return an item's crops; of several a load, after one another."""
    several = item if isinstance(item, list) else [item]
    return torch.stack([torch.as_tensor(one) for one in several])


def check(ours: Volumes, volumes: list[Volume], peers: dict[str, Dataset]) -> None:
    """All give crops of the volumes, and what was cut is what lies there."""
    corner = np.array([3, 100, 217])
    z, y, x = corner
    expected = volumes[1][z : z + CROP, y : y + CROP, x : x + CROP]
    mine = ours.blocks(np.array([1]), corner[None])[0, 0].view(np.int16)
    theirs = SpatialCrop(roi_start=corner.tolist(), roi_end=(corner + CROP).tolist())(
        torch.from_numpy(volumes[1])[None]
    )
    if not (np.array_equal(mine, expected) and np.array_equal(np.asarray(theirs)[0], expected)):
        sys.exit("a crop differs from the volume")
    for name, dataset in peers.items():
        crop = _one(dataset[1])
        if crop.shape[1:] != (1, CROP, CROP, CROP) or crop.dtype != torch.int16:
            sys.exit(f"{name} gives {tuple(crop.shape)} of {crop.dtype}")


def main() -> None:
    """Print rates, ratios and the share of the limit."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    volumes = [rng.integers(-1000, 2000, SHAPE).astype(np.int16) for _ in range(VOLUMES)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = packed(volumes, folder)
        paths = [folder / f"{number}.npy" for number in range(VOLUMES)]
        for path, volume in zip(paths, volumes, strict=True):
            np.save(path, volume)
        files = [str(path) for path in paths]
        one, four = (
            RandSpatialCrop((CROP,) * 3, random_size=False),
            RandSpatialCropSamples((CROP,) * 3, 4, random_size=False),
        )
        peers: dict[str, Dataset] = {
            "MONAI CacheDataset": CacheDataset(files, [_Load(), one], progress=False),
            "MONAI CacheDataset, four crops an item": CacheDataset(files, [_Load(), four], progress=False),
            "MONAI CacheDataset, copy_cache=False": CacheDataset(
                files, [_Load(), one], progress=False, copy_cache=False
            ),
            "MONAI PersistentDataset": PersistentDataset(files, [_Load(), one], cache_dir=folder / "one"),
            "MONAI PersistentDataset, four crops a load": PersistentDataset(
                files, [_Load(), four], cache_dir=folder / "four"
            ),
        }
        check(ours, volumes, peers)
        a_load = {name: 4 if "four" in name else 1 for name in peers}
        block, place = (np.ones((CROP,) * 3, np.int16) for _ in range(2))
        mine, limit, *theirs = median_s(
            Ours(ours).take,
            lambda: [np.copyto(place, block) for _ in range(CROPS)],
            *(crops_of(dataset, PEER_CROPS // a_load[name]) for name, dataset in peers.items()),
            warm_up=True,
        )
    print(f"patches of {CROP}^3 of 16 bits out of {VOLUMES} volumes of {SHAPE}, one thread")
    bound = ("a copy of as many bytes", limit)
    for name, seconds in zip(peers, theirs, strict=True):
        compare("  random patches", "patches", CROPS, mine, (name, seconds * CROPS / PEER_CROPS), bound)


if __name__ == "__main__":
    main()
