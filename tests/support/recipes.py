"""A few steps of each method and one view of each modality under fixed seeds: what a change of a recipe would move.

    python tests/support/recipes.py > tests/golden/recipes.json

writes what `tests/unit/client/pretraining/test_recipes.py` holds training to, after a change that is meant.
"""

import json
from typing import Any

import numpy as np
import torch

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.loop import RoundPlace, train_round
from hilum.client.views import Viewer
from hilum.common.config import parse_study
from hilum.common.config.data import DataSection
from hilum.common.config.modalities import MODALITIES
from hilum.common.methods import ViewGroup, ViewPlan, build_method
from studies import study_table

METHODS: dict[str, dict[str, Any]] = {
    "mae": {},
    "simclr": {"encoder": {"name": "resnet", "size": "tiny"}, "method": {"name": "simclr"}},
}
_BLOCKS = 4


class Losses:
    """Keeps what the loop tells."""

    def __init__(self) -> None:
        self.told: list[float] = []

    def advance(self, done: int, note: str = "") -> None:
        """See `Progress`."""
        del done
        self.told.append(float(note.split()[1].rstrip(",")))


def losses_of(name: str) -> list[float]:
    """Return the loss of each of eight steps."""
    study = parse_study(study_table(**METHODS[name], training={"batch_size": 8, "local_epochs": 4}))
    images = np.random.default_rng(5).integers(0, 65_535, (16, 1, 20, 20)).astype(np.uint16)
    rows = np.arange(16)
    data = SiteData("a", images, (None,) * 16, Split(rows, rows[:0], rows[:0], rows), "digest")
    seen = Losses()
    fabric = make_fabric("cpu", "fp32", 1)
    train_round(build_method(study), data, study, RoundPlace("a", 1, ""), fabric, seen)
    return seen.told


def view_of(modality: str) -> list[float]:
    """Return a strong view of a known image, as the means of its blocks."""
    data = DataSection(modality=modality, image_size=32)
    image = np.random.default_rng(6).random((4, data.facts.channels, 40, 40)).astype(np.float32)
    image[:, :, 10:30, 15:25] += 1
    viewer = Viewer(data, ViewPlan({"image": ViewGroup(1, "strong")}))
    rng = torch.Generator().manual_seed(3)
    views = viewer(torch.from_numpy(image / 2), rng).groups["image"][:, 0]
    blocks = torch.nn.functional.adaptive_avg_pool2d(views, _BLOCKS)
    edges = (views[..., 1:] - views[..., :-1]).abs().mean((1, 2, 3))  # a blur moves these
    return [round(value, 6) for value in [*blocks.flatten().tolist(), *edges.tolist()]]


def recipes() -> dict[str, dict[str, list[float]]]:
    """Return all of them, by kind and name."""
    return {
        "losses": {name: losses_of(name) for name in METHODS},
        "views": {name: view_of(name) for name in MODALITIES},
    }


if __name__ == "__main__":
    kinds = (
        f'"{kind}": {{\n'
        + ",\n".join(f'"{name}": {json.dumps(values)}' for name, values in by_name.items())
        + "\n}"
        for kind, by_name in recipes().items()
    )
    print("{\n" + ",\n".join(kinds) + "\n}")
