"""From the folders that Hilum writes to what can be exported."""

from pathlib import Path

import torch
from torch import Tensor, nn

from hilum.client.export.exportable import Exportable, Outcome
from hilum.client.tasks.model_files import TaskModel, load_model
from hilum.common.errors import RunError
from hilum.common.files import read_json
from hilum.common.pretrained import load_encoder

NO_LICENCE = "not stated; the sites whose images it was trained on decide"
_OF_PIECES = "of an image in several pieces, of the mean over them"


class Calibrated(nn.Module):
    """A model whose outputs are divided by its temperature."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__()
        self.module, self.temperature = model.module, model.temperature or 1.0

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) -> outputs."""
        outputs: Tensor = self.module(images)
        return outputs / self.temperature


def read_exportable(place: Path, licence: str | None = None) -> Exportable:
    """Read a finished run, the `encoder` folder of one, or the folder of a fine-tuned model.

    Args:
        place: The folder.
        licence: Under which the weights may be used.

    Raises:
        RunError: If there is neither.
        DamagedError: If a file is damaged.
    """
    if not place.is_dir():
        raise RunError(
            "there is no such folder; give a finished run, its `encoder` folder, or the folder of a model"
        )
    folder = place if (place / "manifest.json").exists() else place / "encoder"
    read = _model if _is_model(folder) else _encoder
    return read(folder, licence or NO_LICENCE)


def _is_model(folder: Path) -> bool:
    try:
        facts = read_json(folder / "manifest.json")
    except (OSError, ValueError):
        return False  # what is wrong with it, `load_encoder` says
    return isinstance(facts, dict) and "model_sha256" in facts


def _encoder(folder: Path, licence: str) -> Exportable:
    found = load_encoder(folder)
    facts = found.manifest["architecture"]
    return Exportable(
        kind="encoder",
        name=found.manifest["study"],
        module=found.encoder,
        data=found.data,
        output="features",
        output_words=f"{facts['width']} features, the {facts['pooling']}",
        names=(),
        sha256=found.sha256,
        folder=folder,
        manifest=found.manifest,
        card=(folder / "MODEL_CARD.md").read_text(),
        licence=licence,
    )


def _model(folder: Path, licence: str) -> Exportable:
    found, manifest = load_model(folder), read_json(folder / "manifest.json")
    output, words = _outcome(found)
    return Exportable(
        kind="model",
        name=f"{found.study.study.name}: {found.kind}",
        module=Calibrated(found).eval(),
        data=found.study.data,
        output=output,
        output_words=words,
        names=found.names,
        sha256=manifest["model_sha256"],
        folder=folder,
        manifest=manifest,
        card=(folder / "MODEL_CARD.md").read_text(),
        licence=licence,
    )


def _outcome(model: TaskModel) -> tuple[Outcome, str]:
    """Tell what a model gives, by one image."""
    data = model.study.data
    with torch.no_grad():
        given = model.module(torch.zeros(1, data.facts.channels, *data.view_size))
    if not isinstance(given, Tensor):
        raise RunError(
            f"a model for {model.kind} gives several tensors, which no format but its own holds; `hilum site predict` runs it"
        )
    if given.ndim > 2:  # noqa: PLR2004 - a batch of numbers
        return "maps", f"a map of scores for each of {', '.join(model.names)}, at the size of the input"
    if model.kind == "classification":
        return "scores", f"one score for each class; their softmax ({_OF_PIECES}) is the probability of each"
    return "scores", f"one number for each of {', '.join(model.names)}; {_OF_PIECES}"
