"""What predicts: a model of this site's, and how its outputs become results.

Shapes: N prepared images, K outputs.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from lightning_fabric import Fabric

from hilum.client.data.prepared import PreparedImages, Stored
from hilum.client.predictions.results import Classes, Identity, Numbers, Result
from hilum.client.pretraining.device import Device, make_fabric
from hilum.common.config import StudyConfig
from hilum.common.errors import RunError
from hilum.common.files import read_json


class TaskModel(Protocol):
    """A fine-tuned model, as `hilum.client.tasks.model_files` reads it."""

    @property
    def study(self) -> StudyConfig:
        """The study that it was made in: how images are prepared for it."""

    @property
    def kind(self) -> str:
        """The name of its task."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its outputs."""

    def predict(self, images: Stored, rows: npt.NDArray[np.int64], fabric: Fabric) -> npt.NDArray[Any]:
        """Return what it says of some images, (n, K)."""


class Predictor(Protocol):
    """A model, ready to be asked.

    Attributes:
        study: The study that it was made in.
        identity: Which model it is.
    """

    study: StudyConfig
    identity: Identity

    def results(self, prepared: PreparedImages) -> Iterator[Result]:
        """Return what it says of each prepared image, in order."""


class WholeImages:
    """A model that says something of an image as a whole."""

    def __init__(self, model: TaskModel, identity: Identity, fabric: Fabric) -> None:
        self._model, self._fabric = model, fabric
        self.study, self.identity = model.study, identity

    def results(self, prepared: PreparedImages) -> Iterator[Result]:
        """Return what it says of each prepared image, in order."""
        rows = np.arange(len(prepared.items))
        for values in self._model.predict(prepared.images, rows, self._fabric):
            numbers = tuple(float(value) for value in np.atleast_1d(values))
            if self._model.kind == "regression":
                yield Numbers(self._model.names, numbers, ("1",) * len(numbers))
            else:
                yield Classes(self._model.names, numbers)


def open_model(folder: Path, device: Device) -> Predictor:
    """Open the folder of a model.

    Args:
        folder: As `hilum site finetune` wrote it.
        device: Where it is to compute.

    Raises:
        RunError: If it is not one.
        RequestRefused: If there is no such device.
    """
    model: TaskModel = import_module("hilum.client.tasks.model_files").load_model(folder)
    try:
        sha256 = str(read_json(folder / "manifest.json")["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(
            "the model's manifest.json can't be read; name the folder that `hilum site finetune` wrote"
        ) from None
    training = model.study.training
    fabric = make_fabric(device, training.precision, training.threads)
    return WholeImages(model, Identity(model.study.study.name, sha256), fabric)
