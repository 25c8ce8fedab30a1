"""What predicts: a model of this site's, and how its outputs become results.

Shapes: n pieces of one image, C channels, *S space as the encoder sees it, K outputs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from hilum.client.data.own_grid import OwnGrid
from hilum.client.data.prepared import PreparedImages
from hilum.client.predictions.results import Classes, Identity, LabelMap, Numbers, Result
from hilum.client.pretraining.device import Device, make_fabric
from hilum.client.state.cache import ArrayCache
from hilum.client.tasks.dense import segment
from hilum.client.tasks.features import pieces_of
from hilum.client.tasks.model_files import TaskModel, load_model
from hilum.client.views import Viewer
from hilum.common.config import StudyConfig
from hilum.common.preparation.kinds import Kind
from hilum.common.preparation.picture import still_of

MASKS = "segmentation"


class Predictor(Protocol):
    """A model, ready to be asked.

    Attributes:
        study: The study that it was made in.
        identity: Which model it is.
        lays: Whether its results lie on the image: masks or boxes.
    """

    study: StudyConfig
    identity: Identity
    lays: bool

    def results(self, prepared: PreparedImages, arrays: ArrayCache) -> Iterator[Result]:
        """Return what it says of each prepared image, in order.

        Args:
            prepared: The images.
            arrays: What they were prepared from.
        """


class WholeImages:
    """A model that says something of an image as a whole."""

    lays = False

    def __init__(self, model: TaskModel, device: torch.device) -> None:
        self._model, self._device = model, device
        self.study, self.identity = model.study, identity_of(model)

    def results(self, prepared: PreparedImages, arrays: ArrayCache) -> Iterator[Result]:
        """See `Predictor`."""
        del arrays
        viewer = Viewer(self.study.data)
        for row in range(len(prepared.items)):
            pieces = [batch for _, batch in pieces_of(prepared.images, np.array([row]), viewer, self._device)]
            [values] = self._model.predict(torch.cat(pieces))
            numbers = tuple(float(value) for value in np.atleast_1d(values))
            if self._model.kind == "regression":
                yield Numbers(self._model.names, numbers, ("1",) * len(numbers))
            else:
                yield Classes(self._model.names, numbers)


class Masks:
    """A model that says what each pixel or voxel is."""

    lays = True

    def __init__(self, model: TaskModel, device: torch.device) -> None:
        self._model, self._device = model, device
        self.study, self.identity = model.study, identity_of(model)

    def results(self, prepared: PreparedImages, arrays: ArrayCache) -> Iterator[Result]:
        """See `Predictor`; masks lie on the images' own grids, of a clip on that of its middle frame."""
        viewer = Viewer(self.study.data)
        for row, item in enumerate(prepared.items):
            still = still_of(arrays.get(item.content_sha256), item.kind)
            kind: Kind = "volume" if item.kind == "volume" else "image"
            grid = OwnGrid.of(still, kind, item.spacing_mm, self.study.data)
            found = segment(self._model.module, prepared.images, row, grid, viewer, self._device)
            yield LabelMap(self._model.names, found)


def identity_of(model: TaskModel) -> Identity:
    """Return which model it is."""
    return Identity(model.study.study.name, model.sha256)


def open_model(folder: Path, device: Device) -> Predictor:
    """Open the folder of a model.

    Args:
        folder: As `hilum site finetune` wrote it.
        device: Where it is to compute.

    Raises:
        RunError: If it is not one.
        RequestRefused: If there is no such device.
    """
    model = load_model(folder)
    training = model.study.training
    there = make_fabric(device, training.precision, training.threads).device
    model.module.to(there).eval()
    return Masks(model, there) if model.kind == MASKS else WholeImages(model, there)
