"""Volumes that are drawn, and a picture of what training sees of them.

    python tests/support/volume_phantoms.py

writes docs/images/volume-views.png: for a CT and an MR, the packed volume with places that patches are drawn at, the blocks,
and mild and strong views of each.
"""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from hilum.client.data.volumes import VolumeFile, Volumes, cells_of
from hilum.client.views import Viewer, to_unit
from hilum.common.config.data import DataSection
from hilum.common.methods import ViewGroup, ViewPlan
from hilum.common.preparation.packing import packed_values
from hilum.common.preparation.pieces import Geometry
from places import ROOT

_EDGE_PX, _GAP_PX, _SHOWN = 112, 4, 7
_CT = {"air": -1000.0, "skin": 60.0, "inside": 20.0, "lung": -850.0, "bone": 700.0}
_MR = {"air": 5.0, "skin": 700.0, "inside": 420.0, "lung": 60.0, "bone": 90.0}


def trunk(shape: tuple[int, int, int], modality: str, seed: int = 0) -> npt.NDArray[np.int16]:
    """A body with two lungs, a spine and vessels in a field of air, (D, H, W): Hounsfield units, or as an MR might be."""
    rng = np.random.default_rng(seed)
    tissue = _CT if modality == "ct" else _MR
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, edge) for edge in shape), indexing="ij")

    def ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> npt.NDArray[np.bool_]:
        parts = zip((z, y, x), centre, radii, strict=True)
        return sum(((axis - middle) / radius) ** 2 for axis, middle, radius in parts) < 1

    values = np.full(shape, tissue["air"])
    height, width = rng.uniform(0.5, 0.75), rng.uniform(0.7, 0.95)
    values[ball((0, 0, 0), (1.8, height, width))] = tissue["skin"]
    values[ball((0, 0, 0), (1.8, height - 0.05, width - 0.06))] = tissue["inside"]
    for side in (-0.4, 0.4):
        middle = (rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.1), side * rng.uniform(0.7, 1.1))
        values[ball(middle, (rng.uniform(0.5, 0.9), rng.uniform(0.2, 0.4), 0.25))] = tissue["lung"]
    values[ball((0, 0.3, 0), (3, 0.12, 0.1))] = tissue["bone"]
    for _ in range(60):
        z0, y0, x0 = rng.uniform((-1, -0.4, -0.6), (1, 0.35, 0.6))
        radius = rng.uniform(0.02, 0.09)
        values[ball((z0, y0, x0), (2 * radius, radius, radius))] = tissue["skin"]
    grain = 20 if modality == "ct" else 15
    return np.rint(values + rng.normal(0, grain, shape)).clip(-1024, 3000).astype(np.int16)


def volumes_of(
    values: npt.NDArray[np.generic], spacing_mm: tuple[float, float, float], data: DataSection, folder: Path
) -> Volumes:
    """One volume, packed into a folder."""
    packed, cells = packed_values(values, spacing_mm, data)
    path = folder / "volume.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, packed, version=(2, 0))
    np.save(cells_of(path), cells)
    return Volumes((VolumeFile.at(path),), Geometry.of(data))


def sheet(
    values: npt.NDArray[np.generic], spacing_mm: tuple[float, float, float], data: DataSection
) -> Image.Image:
    """Four rows: the volume with patches drawn in, blocks, mild views, strong views."""
    with tempfile.TemporaryDirectory() as folder:
        volumes = volumes_of(values, spacing_mm, data, Path(folder))
        rows = np.zeros(_SHOWN, np.int64)
        origins = volumes.random_origins(rows, np.random.default_rng(4))
        blocks = to_unit(volumes.blocks(rows, origins), torch.device("cpu"))
        plan = ViewPlan({"mild": ViewGroup(1, "crop"), "strong": ViewGroup(1, "strong")})
        views = Viewer(data, plan)(blocks, torch.Generator().manual_seed(1)).groups
        whole = np.array(volumes.files[0].values())
    lines = [
        [_outlined(whole, origin, volumes.geometry.block) for origin in origins],
        *(
            [_tile(_middle(one)) for one in some]
            for some in (blocks, views["mild"][:, 0], views["strong"][:, 0])
        ),
    ]
    pitch = _EDGE_PX + _GAP_PX
    made = Image.new("RGB", (_SHOWN * pitch - _GAP_PX, len(lines) * pitch - _GAP_PX), "white")
    for y, line in enumerate(lines):
        for x, tile in enumerate(line):
            made.paste(tile, (x * pitch, y * pitch))
    return made


def _middle(block: torch.Tensor) -> npt.NDArray[np.float32]:
    plane = block[0] if block.ndim == 3 else block[0, block.shape[1] // 2]
    return plane.numpy()


def _tile(plane: npt.NDArray[np.float32]) -> Image.Image:
    grey = Image.fromarray((plane * 255).round().astype(np.uint8))
    factor = _EDGE_PX / max(grey.size)
    scaled = grey.resize((round(grey.width * factor), round(grey.height * factor)))
    tile = Image.new("RGB", (_EDGE_PX, _EDGE_PX))
    tile.paste(scaled, ((_EDGE_PX - scaled.width) // 2, (_EDGE_PX - scaled.height) // 2))
    return tile


def _outlined(
    whole: npt.NDArray[np.uint16], origin: npt.NDArray[np.int64], block: tuple[int, int, int]
) -> Image.Image:
    """The slice in the middle of a block, with the block drawn in."""
    plane = whole[(int(origin[0]) + block[0] // 2)].astype(np.float32) / 65_535
    tile = _tile(plane)
    factor = _EDGE_PX / max(plane.shape)
    left = (_EDGE_PX - round(plane.shape[1] * factor)) // 2 + origin[2] * factor
    top = (_EDGE_PX - round(plane.shape[0] * factor)) // 2 + origin[1] * factor
    box = (left, top, left + block[2] * factor - 1, top + block[1] * factor - 1)
    ImageDraw.Draw(tile).rectangle(box, outline=(255, 140, 0))
    return tile


if __name__ == "__main__":
    sheets = [
        sheet(
            trunk((60, 160, 200), name, 3),
            (4.0, 2.0, 2.0),
            DataSection(modality=name, dims=3, spacing_mm=2.0),
        )
        for name in ("ct", "mr")
    ]
    both = Image.new("RGB", (sheets[0].width, sheets[0].height + sheets[1].height + 16), "white")
    both.paste(sheets[0], (0, 0))
    both.paste(sheets[1], (0, sheets[0].height + 16))
    both.save(ROOT / "docs" / "images" / "volume-views.png", optimize=True)
