"""Stand-ins for models, and a look at what they made: what a site predicts is tested without training anything."""

import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from hilum.client.intake.indexing.index import index_found
from hilum.client.intake.instance import read_family
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.intake.sources.sources import find
from hilum.client.predictions.dicom.making import Making
from hilum.client.predictions.results import Boxes, FoundBox, Identity, LabelMap
from hilum.client.predictions.sources import SourceFinder
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.config import StudyConfig
from hilum.common.progress import NullProgress

MODEL = Identity("lungs", "0123456789abcdef" * 4)
AT = datetime(2026, 3, 4, 5, 6, 7)  # noqa: DTZ001 - files are dated in the time of the place
MAKING = Making(MODEL, AT)
NAMES = ("SCT:39607008+SCT:24028007", "mass")


def dciodvfy_errors(path):
    """Errors that the validator finds in a DICOM file; skips where there is no validator."""
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy (package dicom3tools) is absent")
    done = subprocess.run([validator, str(path)], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def marked(shape, seed=0):
    """A label map of two classes: a block in the middle, and scattered voxels."""
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(edge // 3, max(2 * edge // 3, edge // 3 + 1)) for edge in shape)] = 1
    few = np.random.default_rng(seed).random(shape) < 0.003
    labels[few] = 2
    labels[tuple(edge // 2 for edge in shape)] = 2
    return labels


def space_of(item):
    """The shape of a mask on an item."""
    return {"volume": item.shape, "image": item.shape[:2], "cine": item.shape[1:3]}[item.kind]


def sources_of(folder, state, family=None):
    """Index a folder, and give each item with where it came from."""
    workspace = Workspace(state)
    found = find(folder, workspace)
    index_found(found, workspace, NullProgress(), images=read_family(family))
    catalogue = Catalogue(workspace.catalogue)
    items = catalogue.items()
    catalogue.close()
    with DecodePool(1, scratch=workspace.folder) as pool:
        finder = SourceFinder(workspace, found, pool)
        return workspace, [(item, finder.source(item)) for item in items]


@dataclass
class Segmenter:
    """Marks the same part of every image."""

    study: StudyConfig
    identity: Identity = MODEL
    names: tuple[str, ...] = NAMES

    def results(self, prepared):
        for item in prepared.items:
            yield LabelMap(self.names, marked(space_of(item)))


@dataclass
class Detector:
    """Finds one box in every image, but none in every third."""

    study: StudyConfig
    identity: Identity = MODEL

    def results(self, prepared):
        for number, _item in enumerate(prepared.items):
            yield Boxes(() if number % 3 == 2 else (FoundBox("mass", 0.875, 4.5, 6, 20, 11.25),))


@dataclass
class BrightModel:
    """What `hilum.client.tasks.model_files` reads, with a rule in place of weights: bright images are ill."""

    study: StudyConfig
    kind: str = "classification"
    names: tuple[str, ...] = ("healthy", "ill")
    asked: list = field(default_factory=list)

    def predict(self, images, rows, fabric):
        self.asked.append(fabric.device.type)
        ill = np.array([images[row].mean() / 65535 for row in rows])
        return np.stack([1 - ill, ill], axis=1)


def model_folder(path: Path) -> Path:
    path.mkdir()
    (path / "manifest.json").write_text(f'{{"sha256": "{MODEL.sha256}"}}')
    return path
