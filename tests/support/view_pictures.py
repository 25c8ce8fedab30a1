"""What the views of each modality look like, on drawn images.

    python tests/support/view_pictures.py docs/images/views.jpg

writes the picture of docs/reference/views.md: a row for each modality; the prepared image, two mild views, four strong ones.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from hilum.client.views import Viewer
from hilum.common.config.data import DataSection
from hilum.common.config.modalities import MODALITIES
from hilum.common.methods import ViewGroup, ViewPlan
from hilum.common.preparation.fitting import fitted_channels
from modality_phantoms import phantom

EDGE_PX, _GAP_PX, _NAME_PX = 112, 3, 82
_MILD, _STRONG = 2, 4
_QUALITY = 85


def row_of(modality: str, edge: int = EDGE_PX) -> Tensor:
    """Return the prepared image and its views, (n, C, edge, edge)."""
    data = DataSection(modality=modality, image_size=edge)
    prepared = torch.from_numpy(fitted_channels(phantom(modality), "image", (), data))[None]
    plan = ViewPlan({"mild": ViewGroup(_MILD, "crop"), "strong": ViewGroup(_STRONG, "strong")})
    viewer = Viewer(data, plan)
    views = viewer(prepared, torch.Generator().manual_seed(4)).groups
    return torch.cat([viewer.whole(prepared), views["mild"][0], views["strong"][0]])


def sheet() -> Image.Image:
    """Lay all rows out, each with its name."""
    pitch = EDGE_PX + _GAP_PX
    drawn = Image.new("RGB", (_NAME_PX + (1 + _MILD + _STRONG) * pitch, len(MODALITIES) * pitch), "white")
    text = ImageDraw.Draw(drawn)
    for y, modality in enumerate(MODALITIES):
        text.text((4, y * pitch + EDGE_PX // 2 - 6), modality, fill="black")
        for x, view in enumerate(row_of(modality)):
            levels = (view.clamp(0, 1).numpy() * 255).round().astype(np.uint8)
            picture = np.moveaxis(np.broadcast_to(levels, (3, EDGE_PX, EDGE_PX)), 0, -1)
            drawn.paste(Image.fromarray(np.ascontiguousarray(picture)), (_NAME_PX + x * pitch, y * pitch))
    return drawn


if __name__ == "__main__":
    sheet().save(Path(sys.argv[1]), quality=_QUALITY)
