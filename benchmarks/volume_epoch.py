"""The images of one epoch of a 3D study, ready for the encoder, beside a MONAI loader of the same.

    python benchmarks/volume_epoch.py

Six volumes of 200 x 350 x 350 voxels in the page cache, four patches of each, 64^3 as the encoder sees it: a block of 80^3 is
cut out, rotated by at most 5 degrees and scaled, all in [0, 1]. Ours plans the round, cuts, and makes the views of a batch at once. MONAI
keeps the scaled volumes in a CacheDataset and takes four crops of each by RandSpatialCropSamples, then RandAffine, one by
one, and stacks them. One thread each. Memory that each holds between two epochs is told.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import Compose, RandAffine, RandSpatialCropSamples, ScaleIntensityRange, Transform
from timing import compare, median_s

from hilum.client.data.volumes import VolumeFile, Volumes, cells_of
from hilum.client.pretraining.volume_sampling import VolumeEpochs
from hilum.client.views import Viewer, to_unit
from hilum.common.config.data import DataSection
from hilum.common.methods import ViewGroup, ViewPlan
from hilum.common.preparation.pieces import Geometry

SHAPE, VIEW, VOLUMES, PER_VOLUME, BATCH = (200, 350, 350), 64, 6, 4, 8
DATA = DataSection(modality="ct", dims=3, image_size=VIEW, per_volume=PER_VOLUME)
PATCHES = VOLUMES * PER_VOLUME


class Ours:
    """What the loop does before the encoder."""

    def __init__(self, volumes: Volumes) -> None:
        rows = np.arange(VOLUMES)
        self.volumes = volumes
        self.epochs = VolumeEpochs(
            volumes, rows, rows, per_volume=PER_VOLUME, batch_size=BATCH, accumulate=1, epochs=1
        )
        self.viewer = Viewer(DATA, ViewPlan({"image": ViewGroup(1, "crop")}))
        self.round = 0

    def epoch(self) -> list[torch.Tensor]:
        """Return the batches of a round of one epoch."""
        self.round += 1
        rng, batches = torch.Generator().manual_seed(self.round), []
        for step in self.epochs.plan(7, "a", self.round):
            for draws in step:
                assert draws.origins is not None
                blocks = to_unit(self.volumes.blocks(draws.rows, draws.origins), torch.device("cpu"))
                batches.append(self.viewer(blocks, rng).groups["image"][:, 0])
        return batches


class _Load(Transform):
    """Loads one volume with its channel."""

    def __call__(self, path: str) -> torch.Tensor:
        return torch.from_numpy(np.load(path).astype(np.float32))[None]


def peer(paths: list[str]) -> Dataset:
    """Return a CacheDataset whose deterministic part ends with the scaled volume."""
    block = DATA.block_size
    affine = RandAffine(
        prob=1.0,
        rotate_range=(np.radians(5), 0, 0),
        scale_range=(0.1, 0.1, 0.1),
        spatial_size=DATA.view_size,
        padding_mode="zeros",
        cache_grid=True,
    )
    transforms = Compose(
        [
            _Load(),
            ScaleIntensityRange(-1000, 1000, 0, 1, clip=True),
            RandSpatialCropSamples(block, PER_VOLUME, random_size=False),
            affine,
        ]
    )
    return CacheDataset(paths, transforms, progress=False)


def main() -> None:
    """Print rates, their ratio, and what each holds."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder, files, paths = Path(name), [], []
        for number in range(VOLUMES):
            volume = rng.integers(-1000, 1000, SHAPE, dtype=np.int16)
            paths.append(str(folder / f"{number}.npy"))
            np.save(paths[-1], volume)
            path = folder / f"packed-{number}.npy"
            with path.open("wb") as file:
                packed = ((volume.astype(np.float32) + 1000) / 2000 * 65_535).round().astype(np.uint16)
                np.lib.format.write_array(file, packed, version=(2, 0))
            count = int(np.prod([-(-edge // 8) for edge in SHAPE]))
            np.save(cells_of(path), np.arange(count, dtype=np.int32))
            files.append(VolumeFile.at(path))
        ours = Ours(Volumes(tuple(files), Geometry.of(DATA)))
        loader = DataLoader(peer(paths), batch_size=BATCH // PER_VOLUME, shuffle=True)
        for what, batches in (("ours", ours.epoch()), ("MONAI", list(loader))):
            every = torch.cat([torch.as_tensor(batch) for batch in batches])
            inside = float(every.min()) >= 0 and float(every.max()) <= 1
            if every.shape != (PATCHES, 1, *DATA.view_size) or not inside:
                sys.exit(f"{what} gives {tuple(every.shape)} in [{every.min():.3f}, {every.max():.3f}]")
        blocks = torch.rand(BATCH, 1, *DATA.block_size)
        views, generator = ours.viewer, torch.Generator().manual_seed(0)
        mine, theirs, limit = median_s(
            ours.epoch,
            lambda: list(loader),
            lambda: [views(blocks, generator) for _ in range(PATCHES // BATCH)],
            warm_up=True,
        )
    print(f"an epoch of {PATCHES} patches, {VIEW}^3 out of {VOLUMES} volumes of {SHAPE}, one thread")
    peer_time, bound = (
        ("MONAI CacheDataset, RandSpatialCropSamples, RandAffine", theirs),
        ("the views alone", limit),
    )
    compare("  patches ready for the encoder", "patches", PATCHES, mine, peer_time, bound)
    held_mb = VOLUMES * np.prod(SHAPE) * 4 / 1e6
    print(f"  held between two epochs: ours 0 MB, MONAI {held_mb:,.0f} MB of volumes")


if __name__ == "__main__":
    main()
