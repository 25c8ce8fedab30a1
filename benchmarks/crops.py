"""Random 96^3 crops of cached volumes, beside MONAI's PersistentDataset.

    python benchmarks/crops.py

The volumes are int16 and lie in the page cache. Ours opens the memory map of the array cache once a volume and copies
crops out of it. MONAI's PersistentDataset keeps the loaded tensor of each volume in a file and cuts the crops after loading it:
one crop a load, and four a load. All cut where they should, checked first. The limit is a copy of as many bytes in memory.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from monai.data import PersistentDataset
from monai.transforms import RandSpatialCrop, RandSpatialCropSamples, Transform
from timing import compare, median_s

from hilum.client.state.cache import ArrayCache

SHAPE, CROP, VOLUMES = (120, 512, 512), 96, 3
CROPS, PEER_CROPS = 240, 12
Volume = npt.NDArray[np.int16]


class Mapped:
    """Crops out of the array cache, as training takes them."""

    def __init__(self, cache: ArrayCache, digests: list[str]) -> None:
        self.volumes = [cache.get(digest) for digest in digests]
        self.rng = np.random.default_rng(0)

    def crop(self, volume: int, corner: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return a copy of one crop."""
        z, y, x = (slice(int(begin), int(begin) + CROP) for begin in corner)
        return torch.from_numpy(np.array(self.volumes[volume][z, y, x]))

    def take(self, count: int) -> None:
        """Random crops of random volumes."""
        for _ in range(count):
            corner = self.rng.integers(0, np.array(SHAPE) - CROP + 1)
            self.crop(int(self.rng.integers(VOLUMES)), corner)


def peer(volumes: list[Path], folder: Path, crop: Callable[..., object]) -> PersistentDataset:
    """MONAI's cache: what comes before the random transform is kept on disk."""
    load = _Load()
    return PersistentDataset([str(path) for path in volumes], [load, crop], cache_dir=folder)


class _Load(Transform):
    """Loads one volume with its channel, as a deterministic transform that is cached."""

    def __call__(self, path: str) -> torch.Tensor:
        return torch.from_numpy(np.load(path))[None]


def check(mapped: Mapped, volumes: list[Volume], one: PersistentDataset) -> None:
    """Both give crops of the volumes, and what was cut is what lies there."""
    corner = np.array([3, 100, 217])
    z, y, x = corner
    expected = volumes[1][z : z + CROP, y : y + CROP, x : x + CROP]
    same = np.array_equal(mapped.crop(1, corner).numpy(), expected)
    loaded = one._cachecheck(one.data[1])  # the volume before the random crop
    crop = one[0]
    fits = np.array_equal(np.asarray(loaded)[0], volumes[1]) and tuple(crop.shape) == (1, CROP, CROP, CROP)
    if not (same and fits and crop.dtype == torch.int16):
        sys.exit("a crop differs from the volume")


def main() -> None:
    """Print rates, ratios and the share of the limit."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    volumes = [rng.integers(-1000, 2000, SHAPE).astype(np.int16) for _ in range(VOLUMES)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = ArrayCache(folder / "cache")
        mapped = Mapped(cache, [cache.put(volume) for volume in volumes])
        paths = [folder / f"{number}.npy" for number in range(VOLUMES)]
        for path, volume in zip(paths, volumes, strict=True):
            np.save(path, volume)
        one = peer(paths, folder / "one", RandSpatialCrop((CROP,) * 3, random_size=False))
        four = peer(paths, folder / "four", RandSpatialCropSamples((CROP,) * 3, 4, random_size=False))
        check(mapped, volumes, one)
        block, place = (np.ones((CROP,) * 3, np.int16) for _ in range(2))
        mine, single, several, limit = median_s(
            lambda: mapped.take(CROPS),
            lambda: [one[number % VOLUMES] for number in range(PEER_CROPS)],
            lambda: [four[number % VOLUMES] for number in range(PEER_CROPS // 4)],
            lambda: [np.copyto(place, block) for _ in range(CROPS)],
            warm_up=True,
        )
    print(f"crops of {CROP}^3 int16 out of {VOLUMES} volumes of {SHAPE}, one thread")
    scale, bound = CROPS / PEER_CROPS, ("a copy of as many bytes", limit)
    name, counted = "MONAI PersistentDataset", (CROPS, mine)
    compare("  one crop a load", "crops", *counted, (name, single * scale), bound)
    compare("  four crops a load", "crops", *counted, (name, several * scale), bound)


if __name__ == "__main__":
    main()
