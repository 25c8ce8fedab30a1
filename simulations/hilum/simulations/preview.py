"""Pictures of what the method does with a few training images, for the report."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hilum.client.data.prepared import drawn
from hilum.client.data.site_data import SiteData
from hilum.client.views import Viewer, to_unit
from hilum.common.config import StudyConfig
from hilum.common.files import write_via
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest, set_federated
from hilum.common.seeding import derive, generator
from hilum.server.federation.store import RunStore

_IMAGES = 6
_EDGE_PX = 128
_GAP_PX = 6
_COLOURS = 3


def write_previews(study: StudyConfig, store: RunStore, sites: list[SiteData]) -> None:
    """Write `preview/<site>.png`: one row a caption of the method's preview, one column an image.

    Captions are in `preview/captions.json`, top row first.
    """
    method = build_method(study)
    done = store.load(federated_manifest(method))
    assert done is not None, "a finished run has a checkpoint"
    set_federated(method, done.weights)
    method.eval()
    viewer = Viewer(study.data, method.spec.views, study.views)
    captions: list[str] = []
    for data in sites:
        rng = torch.Generator().manual_seed(derive(study.study.seed, "preview"))
        rows = data.split.pretrain[:_IMAGES]
        images = drawn(data.images, rows, generator(study.study.seed, "preview", "pieces"))
        views = viewer(to_unit(images, torch.device("cpu")), rng)
        pictures = method.preview(views, method.draw(len(rows), rng))
        captions = list(pictures)
        sheet = _sheet(list(pictures.values()))
        write_via(store.folder / "preview" / f"{data.name}.png", sheet.save)
    store.write("preview/captions.json", captions)


def _sheet(rows: list[Tensor]) -> Image.Image:
    """Lay pictures out; of a volume, its middle slice."""
    columns = max(len(row) for row in rows)
    pitch = _EDGE_PX + _GAP_PX
    sheet = Image.new(
        "RGB" if rows[0].shape[1] == _COLOURS else "L",
        (columns * pitch - _GAP_PX, len(rows) * pitch - _GAP_PX),
        color=0,
    )
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            plane = picture if picture.ndim == 3 else picture[:, picture.shape[1] // 2]  # noqa: PLR2004 - C H W
            shown = (plane.detach().numpy() * 255).round().astype(np.uint8)
            drawn = Image.fromarray(np.moveaxis(shown, 0, -1) if len(shown) == _COLOURS else shown[0])
            sheet.paste(drawn.resize((_EDGE_PX, _EDGE_PX)), (x * pitch, y * pitch))
    return sheet
