"""Stand-ins for models, and a look at what they made: what a site predicts is tested without training anything."""

import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pytest
import torch
from torch import nn

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
    lays: bool = True

    def results(self, prepared, arrays):
        for item in prepared.items:
            yield LabelMap(self.names, marked(space_of(item)))


@dataclass
class Detector:
    """Finds one box in every image, but none in every third."""

    study: StudyConfig
    identity: Identity = MODEL
    lays: bool = True

    def results(self, prepared, arrays):
        for number, _item in enumerate(prepared.items):
            yield Boxes(() if number % 3 == 2 else (FoundBox("mass", 0.875, 4.5, 6, 20, 11.25),))


class Scores(nn.Module):
    """Scores of three classes for each pixel: dark is the background, then two steps of brightness."""

    def __init__(self):
        super().__init__()
        self.steps = nn.Parameter(torch.tensor([0.15, 0.5, 0.85]))

    def forward(self, images):
        return -20 * (images[:, :1] - self.steps.view(1, -1, *[1] * (images.ndim - 2))).abs()


@dataclass
class RuleModel:
    """What `hilum.client.tasks.model_files` gives, with a rule in place of weights: bright images are ill."""

    study: StudyConfig
    kind: str = "classification"
    names: tuple[str, ...] = ("healthy", "ill")
    module: nn.Module = field(default_factory=Scores)
    sha256: str = MODEL.sha256

    def predict(self, pieces):
        ill = float(pieces.mean())
        return np.array([[1 - ill, ill]])
