"""A few steps of each method and one view of each modality under fixed seeds: what a change of a recipe would move.

    python tests/support/recipes.py > tests/golden/recipes.json

writes what `tests/unit/client/pretraining/test_recipes.py` holds training to, after a change that is meant.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from lightning_fabric import Fabric

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.pretraining import loop
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.mechanisms import MECHANISMS, Mechanism
from hilum.client.pretraining.step import MicroBatch, PendingOutcome, Step
from hilum.client.views import Viewer
from hilum.common.config import parse_study
from hilum.common.config.data import DataSection
from hilum.common.config.modalities import MODALITIES
from hilum.common.methods import ViewGroup, ViewPlan, build_method
from hilum.common.progress import NullProgress
from studies import study_table

METHODS: dict[str, dict[str, Any]] = {
    "mae": {},
    "simclr": {"encoder": {"name": "resnet", "size": "tiny"}, "method": {"name": "simclr"}},
}
_BLOCKS = 4


def losses_of(name: str) -> list[float]:
    """Return the loss of each of eight steps."""
    study = parse_study(
        study_table(
            **METHODS[name], training={"batch_size": 8, "local_epochs": 4, "base_learning_rate": 0.03}
        )
    )
    images = np.random.default_rng(5).integers(0, 65_535, (16, 1, 20, 20)).astype(np.uint16)
    rows = np.arange(16)
    data = SiteData("a", images, (None,) * 16, Split(rows, rows[:0], rows[:0], rows), "digest")
    told: list[float] = []
    ordinary = MECHANISMS["none"]

    def noting(fabric: Fabric, *rest: Any) -> Step:
        step = ordinary.step(fabric, *rest)

        def take(batches: Iterable[MicroBatch], sizes: Sequence[int]) -> PendingOutcome | None:
            outcome = step(batches, sizes)
            assert outcome is not None
            told.append(round(outcome.wait().loss, 6))
            return outcome

        return take

    with mock.patch.dict(MECHANISMS, none=Mechanism(ordinary.sampler, noting)):
        loop.train_round(
            build_method(study),
            data,
            study,
            loop.RoundPlace("a", 1, ""),
            make_fabric("cpu", "fp32", 1),
            NullProgress(),
        )
    return told


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
